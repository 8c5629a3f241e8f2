/** Everything the scripted model says, by the language of the prompt. */
export interface Texts {
  /** The first sentence of every answer: nobody may take it for an AI. */
  label: string;
  needsKey: string;
  look: string;
  lookFor: (path: string) => string;
  looked: (path: string) => string;
  notThere: (path: string) => string;
  write: (path: string) => string;
  again: (path: string) => string;
  test: string;
  done: (paths: string[]) => string;
  failed: (paths: string[]) => string;
  nothing: string;
  passed: string;
  testsFailed: string;
  noNode: string;
  untested: string;
  review: string;
  noTools: (prompt: string) => string;
  noted: (path: string) => string;
  demoFile: { heading: string; entry: string };
  testDescription: string;
}

const en: Texts = {
  label: "This is the demo model: a script without AI.",
  needsKey:
    "It only knows the sample task. For a real model, store a provider key (settings, or provider.set) or start the server with OPENAI_API_KEY.",
  look: "First I look at the greeting that is there.",
  lookFor: (path) => `I look whether there is a ${path} already.`,
  looked: (path) => `I have read ${path}. `,
  notThere: (path) => `${path} is not there, so I start from scratch. `,
  write: (path) => `I write ${path}.`,
  again: (path) => `${path} exists already, so I look at it first.`,
  test: "Now I run the tests.",
  done: (paths) => `Written: ${paths.join(", ")}.`,
  failed: (paths) => `Could not be written: ${paths.join(", ")}.`,
  nothing: "There was nothing I could write with.",
  passed: "The tests pass.",
  testsFailed: "The tests did not pass; their output is above.",
  noNode: "Node.js is not at hand in this sandbox, so the tests were not run.",
  untested: "There was no shell to run the tests in.",
  review: "Have a look at the change and accept or reject it.",
  noTools: (prompt) => `You wrote: "${prompt}".`,
  noted: (path) => `I noted your prompt in ${path}, so that there is a change to review.`,
  demoFile: {
    heading: "# Demo\n\nWritten by the demo model, a script without AI.\n",
    entry: "## You asked",
  },
  testDescription: "Runs the project's tests",
};

const de: Texts = {
  label: "Das ist das Demo-Modell: ein Skript ohne KI (without AI).",
  needsKey:
    "Es kennt nur die Beispielaufgabe. Für ein echtes Modell einen Provider-Schlüssel hinterlegen (Einstellungen oder provider.set) oder den Server mit OPENAI_API_KEY starten.",
  look: "Zuerst sehe ich mir die vorhandene Begrüßung an.",
  lookFor: (path) => `Ich sehe nach, ob es schon eine ${path} gibt.`,
  looked: (path) => `${path} ist gelesen. `,
  notThere: (path) => `${path} gibt es nicht, also fange ich neu an. `,
  write: (path) => `Ich schreibe ${path}.`,
  again: (path) => `${path} gibt es schon, also sehe ich es mir zuerst an.`,
  test: "Jetzt führe ich die Tests aus.",
  done: (paths) => `Geschrieben: ${paths.join(", ")}.`,
  failed: (paths) => `Nicht geschrieben werden konnte: ${paths.join(", ")}.`,
  nothing: "Es gab kein Werkzeug, mit dem ich hätte schreiben können.",
  passed: "Die Tests laufen durch.",
  testsFailed: "Die Tests sind nicht durchgelaufen; ihre Ausgabe steht oben.",
  noNode: "Node.js gibt es in dieser Sandbox nicht, die Tests liefen daher nicht.",
  untested: "Es gab keine Shell, um die Tests auszuführen.",
  review: "Sehen Sie sich die Änderung an, dann übernehmen oder verwerfen Sie sie.",
  noTools: (prompt) => `Sie haben geschrieben: „${prompt}“.`,
  noted: (path) => `Ich habe Ihren Auftrag in ${path} festgehalten, damit es eine Änderung zu prüfen gibt.`,
  demoFile: {
    heading: "# Demo\n\nGeschrieben vom Demo-Modell, einem Skript ohne KI.\n",
    entry: "## Dein Auftrag",
  },
  testDescription: "Führt die Tests des Projekts aus",
};

const GERMAN =
  /[äöüß]|\b(und|oder|nicht|eine?[nmr]?|der|die|das|den|dem|mit|für|bitte|hallo|erstelle|schreibe|füge|hinzu|ist|soll|kannst|mach|ändere|baue?)\b/giu;
const ENGLISH =
  /\b(the|and|or|not|an?|with|for|please|create|write|add|is|should|can|make|change|build|to|of)\b/gi;

/** The texts in the prompt's language: German when more of it looks German than English. */
export function textsFor(prompt: string): Texts {
  const sample = prompt.slice(0, 4000);
  const german = sample.match(GERMAN)?.length ?? 0;
  const english = sample.match(ENGLISH)?.length ?? 0;
  return german > english ? de : en;
}
