import { useEffect, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { client, getToken, request } from "../state/session.ts";
import { useAction, useAsync } from "../state/use-async.ts";
import { Badge, Dialog, ErrorNote } from "./parts.tsx";

interface Health {
  status: string;
  checks: Record<string, { ok: boolean; detail?: string }>;
}

const REFRESH_MS = 5000;

/** The debug dashboard of the OpenCode gateway: every part's health and a live streaming test. */
export function Status({ onClose }: { onClose: () => void }) {
  const { t } = useTranslation();
  const health = useAsync("health", async () => (await fetch("/health")).json() as Promise<Health>);
  const opencode = useAsync(
    "opencode health",
    async () => (await fetch("/opencode/health")).json() as Promise<Health>,
  );
  const { reload } = health;
  const { reload: reloadOpencode } = opencode;
  useEffect(() => {
    const timer = setInterval(() => {
      reload();
      reloadOpencode();
    }, REFRESH_MS);
    return () => clearInterval(timer);
  }, [reload, reloadOpencode]);
  const checks = { ...opencode.data?.checks, ...health.data?.checks };

  return (
    <Dialog title={t("status.title")} onClose={onClose}>
      <ErrorNote error={health.error ?? opencode.error} />
      <ul className="plain">
        {Object.entries(checks).map(([name, check]) => (
          <li key={name} className="row between">
            <span>
              {name} <small className="muted">{check.detail}</small>
            </span>
            <Badge tone={check.ok ? "good" : "bad"}>{t(check.ok ? "status.ok" : "status.broken")}</Badge>
          </li>
        ))}
      </ul>
      <StreamTest />
    </Dialog>
  );
}

function StreamTest() {
  const { t } = useTranslation();
  const [prompt, setPrompt] = useState(t("status.streamPrompt"));
  const [text, setText] = useState("");
  const abort = useRef<AbortController | undefined>(undefined);
  useEffect(() => () => abort.current?.abort(), []);
  const start = useAction(async () => {
    setText("");
    abort.current = new AbortController();
    const { signal } = abort.current;
    const { models } = await client.call("llm.models", {});
    const model = (models.find((each) => !each.scripted) ?? models[0])?.id ?? "";
    const query = new URLSearchParams({ prompt, model });
    const headers = { authorization: `Bearer ${await getToken()}` };
    try {
      const response = await request(`/opencode/stream?${query}`, { headers, signal });
      const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const part = await reader?.read();
        if (part === undefined || part.done) break;
        setText((before) => before + part.value);
      }
    } catch (error) {
      // Who has pressed "stop" needs no telling.
      if (!signal.aborted) throw error;
    }
  });
  return (
    <section className="column">
      <h3>{t("status.stream")}</h3>
      <p className="muted">{t("status.streamText")}</p>
      <div className="row">
        <input
          className="grow"
          aria-label={t("prompt.label")}
          value={prompt}
          onChange={(event) => setPrompt(event.target.value)}
        />
        {start.busy ? (
          <button type="button" onClick={() => abort.current?.abort()}>
            {t("status.stop")}
          </button>
        ) : (
          <button type="button" onClick={() => start.run()}>
            {t("status.run")}
          </button>
        )}
      </div>
      <ErrorNote error={start.error} />
      {text !== "" && <pre data-testid="stream">{text}</pre>}
    </section>
  );
}
