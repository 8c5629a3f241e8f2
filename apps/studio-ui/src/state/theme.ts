const STORAGE_KEY = "cds.theme";
const THEMES = ["neon-cyber-night", "serial-steel"] as const;

/** The theme chosen last, else the one that suits the reader's system. */
export function startTheme(): void {
  const stored = localStorage.getItem(STORAGE_KEY);
  const preferred = matchMedia("(prefers-color-scheme: light)").matches ? THEMES[1] : THEMES[0];
  document.documentElement.dataset.theme = THEMES.find((theme) => theme === stored) ?? preferred;
}

export function switchTheme(): void {
  const next = document.documentElement.dataset.theme === THEMES[0] ? THEMES[1] : THEMES[0];
  document.documentElement.dataset.theme = next;
  localStorage.setItem(STORAGE_KEY, next);
}
