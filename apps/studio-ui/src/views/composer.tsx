import { useEffect, useState } from "react";
import { useTranslation } from "react-i18next";
import { client } from "../state/session.ts";
import { useAction, useAsync } from "../state/use-async.ts";
import { ErrorNote } from "./parts.tsx";

interface ComposerProps {
  projectId: string;
  /** Offer the first prompt of the sample. */
  suggest: boolean;
  onSent: () => void;
}

/** Where a prompt is written and sent. */
export function Composer({ projectId, suggest, onSent }: ComposerProps) {
  const { t } = useTranslation();
  const [prompt, setPrompt] = useState("");
  const [model, setModel] = useState("");
  const models = useAsync("models", async () => (await client.call("llm.models", {})).models);
  const chosen = model === "" ? (models.data?.find((each) => !each.scripted) ?? models.data?.[0])?.id : model;
  useEffect(() => {
    if (suggest) setPrompt((before) => (before === "" ? t("prompt.suggestion") : before));
  }, [suggest, t]);

  const send = useAction(async () => {
    if (chosen === undefined || prompt.trim() === "") return;
    await client.call("agent.dispatch", {
      agent: "CodeAgent",
      project_id: projectId,
      prompt,
      model: chosen,
      // A second press of the button, or a repeat after a lost answer, is the same task.
      idempotency_key: crypto.randomUUID(),
    });
    setPrompt("");
    onSent();
  });

  return (
    <form
      className="card composer"
      onSubmit={(event) => {
        event.preventDefault();
        send.run();
      }}
    >
      <label htmlFor="prompt">{t("prompt.label")}</label>
      <textarea
        id="prompt"
        rows={3}
        value={prompt}
        placeholder={t("prompt.placeholder")}
        onChange={(event) => setPrompt(event.target.value)}
        onKeyDown={(event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !send.busy) send.run();
        }}
      />
      <div className="row between">
        <label className="row">
          {t("prompt.model")}
          <select value={chosen ?? ""} onChange={(event) => setModel(event.target.value)}>
            {models.data === undefined && <option value="">{t("prompt.noModels")}</option>}
            {models.data?.map((each) => (
              <option key={each.id} value={each.id}>
                {each.id}
              </option>
            ))}
          </select>
        </label>
        <button
          type="submit"
          className="primary"
          disabled={send.busy || prompt.trim() === "" || chosen === undefined}
          title={t("prompt.sendHint")}
        >
          {t("prompt.send")}
        </button>
      </div>
      {models.data?.find((each) => each.id === chosen)?.scripted === true && (
        <small className="muted">{t("prompt.demoNote")}</small>
      )}
      <ErrorNote error={send.error ?? models.error} />
    </form>
  );
}
