// Before anything is drawn, so that a page that is set to dark does not flash up light.
const chosen = localStorage.getItem("tokenhub-theme");
if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
