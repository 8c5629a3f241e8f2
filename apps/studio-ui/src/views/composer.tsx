import { useEffect, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import type { MethodInput } from "#schemas";
import { client } from "../state/session.ts";
import { useAction, useAsync } from "../state/use-async.ts";
import { Choice, ErrorNote } from "./parts.tsx";

type Runner = NonNullable<MethodInput<"agent.dispatch">["runner"]>;

interface ComposerProps {
  projectId: string;
  /** Offer the first prompt of the sample. */
  suggest: boolean;
  /** Changes when the settings may have: other models can be named then. */
  settingsRound: number;
  onSent: () => void;
}

/** Not `crypto.randomUUID`: a page that a team opens over plain HTTP has none. */
function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("-");
}

/** Where a prompt is written and sent. */
export function Composer({ projectId, suggest, settingsRound, onSent }: ComposerProps) {
  const { t } = useTranslation();
  const [prompt, setPrompt] = useState("");
  const [model, setModel] = useState("");
  const [agent, setAgent] = useState("CodeAgent");
  const [runner, setRunner] = useState<Runner | "">("");
  const agents = useAsync("agents", async () => (await client.call("agent.list", {})).agents);
  const runners = agents.data?.find((each) => each.name === agent)?.runners ?? [];
  const models = useAsync(
    `models ${settingsRound}`,
    async () => (await client.call("llm.models", {})).models,
  );
  const chosen = model === "" ? (models.data?.find((each) => !each.scripted) ?? models.data?.[0])?.id : model;
  useEffect(() => {
    if (suggest) setPrompt((before) => (before === "" ? t("prompt.suggestion") : before));
  }, [suggest, t]);

  const attempt = useRef({ of: "", key: "" });
  const send = useAction(async () => {
    if (chosen === undefined || prompt.trim() === "") return;
    const of = JSON.stringify([projectId, chosen, agent, runner, prompt]);
    if (attempt.current.of !== of) attempt.current = { of, key: newKey() };
    await client.call("agent.dispatch", {
      agent,
      ...(runner === "" ? {} : { runner }),
      project_id: projectId,
      prompt,
      model: chosen,
      // Sent again after a lost answer, it is the same task.
      idempotency_key: attempt.current.key,
    });
    attempt.current = { of: "", key: "" };
    setPrompt("");
    onSent();
  });

  const sendable = !send.busy && prompt.trim() !== "" && chosen !== undefined;
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
        <Choice
          label={t("prompt.agent")}
          title={agents.data?.find((each) => each.name === agent)?.description}
          options={(agents.data ?? [{ name: agent }]).map(({ name }) => [name, name])}
          value={agent}
          onChange={setAgent}
        />
        <Choice
          label={t("prompt.runner")}
          options={[["", t("prompt.runnerDefault")], ...runners.map((name) => [name, name] as const)]}
          value={runner}
          onChange={(value) => setRunner(value as Runner | "")}
        />
        <Choice
          label={t("prompt.model")}
          options={
            models.data?.map(({ id }) => [id, id]) ?? [
              ["", t(models.loading ? "app.loading" : "prompt.noModels")],
            ]
          }
          value={chosen ?? ""}
          onChange={setModel}
        />
        <button type="submit" className="primary" disabled={!sendable} title={t("prompt.sendHint")}>
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
