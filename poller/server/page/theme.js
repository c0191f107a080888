// Light or dark: as the system says, or as the reader chose; kept in this browser.

const KEY = "poller.theme";
const CHOICES = ["system", "light", "dark"];

/** @returns {string} one of CHOICES */
function chosen() {
  try {
    const kept = localStorage.getItem(KEY) ?? "";
    return CHOICES.includes(kept) ? kept : "system";
  } catch {
    return "system"; // storage may be forbidden; the page works without
  }
}

/** @param {string} choice */
function apply(choice) {
  if (choice === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = choice;
}

/** Let a button go round the choices. @param {HTMLButtonElement} button */
export function themeButton(button) {
  const say = () => {
    button.textContent = { system: "Auto", light: "Light", dark: "Dark" }[chosen()] ?? "";
    button.setAttribute("aria-label", `Colours: ${chosen()}; change`);
    button.title = "Colours: as the system says, light, or dark";
  };
  button.addEventListener("click", () => {
    const next = CHOICES[(CHOICES.indexOf(chosen()) + 1) % CHOICES.length];
    try {
      localStorage.setItem(KEY, next);
    } catch {
      // not kept, but shown
    }
    apply(next);
    say();
  });
  say();
}

apply(chosen());
