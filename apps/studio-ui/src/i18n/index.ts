import i18next from "i18next";
import { initReactI18next } from "react-i18next";
import { de } from "./de.ts";
import { en } from "./en.ts";

const STORAGE_KEY = "cds.language";

type Language = "de" | "en";

function firstLanguage(): Language {
  const stored = localStorage.getItem(STORAGE_KEY);
  if (stored === "de" || stored === "en") return stored;
  return navigator.language.toLowerCase().startsWith("de") ? "de" : "en";
}

export async function startI18n(): Promise<void> {
  const language = firstLanguage();
  await i18next.use(initReactI18next).init({
    resources: { de: { translation: de }, en: { translation: en } },
    lng: language,
    fallbackLng: "en",
    interpolation: { escapeValue: false },
  });
  document.documentElement.lang = language;
}

export async function switchLanguage(): Promise<void> {
  const next: Language = i18next.language === "de" ? "en" : "de";
  localStorage.setItem(STORAGE_KEY, next);
  document.documentElement.lang = next;
  await i18next.changeLanguage(next);
}
