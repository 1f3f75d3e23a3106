// Sets light or dark before anything is drawn; without a choice the system's is followed.
//
// Rule: a classic script, so that no page flashes in the wrong colours.
(() => {
  try {
    const chosen = localStorage.getItem('theme');
    if (chosen === 'light' || chosen === 'dark') document.documentElement.dataset.theme = chosen;
  } catch {
    // A browser may refuse storage; then the system's colours are used.
  }
})();
