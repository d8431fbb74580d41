
"use strict";
{
  const branches = document.querySelectorAll("details.branch");
  // A link into a closed part of the page opens it.
  const show = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let element = target; element; element = element.parentElement) {
      if (element.tagName === "DETAILS") element.open = true;
    }
    target?.querySelector(":scope > summary")?.focus({ preventScroll: true });
    target?.scrollIntoView();
  };
  addEventListener("hashchange", show);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    for (const branch of button ? branches : []) branch.open = button.value === "open";
    // The second click on a link does not change the address.
    const link = event.target.closest("a");
    if (link && link.hash === location.hash) show();
  });
  show();
}
