"""A reviewed change to what people and programs read: mbox, diff, Markdown, JSON."""
