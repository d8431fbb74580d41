
"use strict";
{
  const all = () => document.querySelectorAll("details.branch");
  // A link into a closed part of the page opens it, in browsers too that do not do so by themselves.
  const show = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let element = target; element; element = element.parentElement) {
      if (element.tagName === "DETAILS") element.open = true;
    }
    const first = target.querySelector(":scope > summary") || target;
    if (first === target) first.tabIndex = -1;
    first.focus({ preventScroll: true });
    target.scrollIntoView();
  };
  addEventListener("hashchange", show);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    // The second click on a link does not change the address.
    if (link && link.hash === location.hash) show();
  });
  for (const button of document.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      for (const branch of all()) branch.open = button.value === "open";
    });
    button.parentElement.hidden = false;
  }
  addEventListener("beforeprint", () => {
    for (const branch of all()) branch.open = true;
  });
  show();
}
