import { useEffect, useState } from "react";
import { useTranslation } from "react-i18next";
import type { UserView } from "#schemas";
import { client, getToken, http } from "../state/session.ts";
import { useAction, useAsync } from "../state/use-async.ts";
import { Dialog, ErrorNote } from "./parts.tsx";

export function Settings({ user, onClose }: { user: UserView; onClose: () => void }) {
  const { t } = useTranslation();
  return (
    <Dialog title={t("settings.title")} onClose={onClose}>
      {user.role !== "viewer" && <ProviderForm />}
      <StudioKey />
    </Dialog>
  );
}

function ProviderForm() {
  const { t } = useTranslation();
  const provider = useAsync("provider", () => client.call("provider.get", {}));
  const [form, setForm] = useState({ baseUrl: "", apiKey: "", models: "" });
  const [done, setDone] = useState<"saved" | "removed" | undefined>(undefined);
  useEffect(() => {
    if (provider.data === undefined) return;
    setForm({ baseUrl: provider.data.base_url, apiKey: "", models: provider.data.models.join(", ") });
  }, [provider.data]);
  const save = useAction(async () => {
    setDone(undefined);
    const models = form.models
      .split(",")
      .map((model) => model.trim())
      .filter((model) => model !== "");
    const params = { base_url: form.baseUrl, models };
    await client.call("provider.set", form.apiKey === "" ? params : { ...params, api_key: form.apiKey });
    // What was typed is forgotten here as well, at once.
    setForm((before) => ({ ...before, apiKey: "" }));
    setDone("saved");
    provider.reload();
  });
  const remove = useAction(async () => {
    setDone(undefined);
    await client.call("provider.delete", {});
    setDone("removed");
    provider.reload();
  });

  return (
    <form
      className="column"
      onSubmit={(event) => {
        event.preventDefault();
        save.run();
      }}
    >
      <h3>{t("settings.provider")}</h3>
      <p className="muted">{t("settings.providerText")}</p>
      <label>
        {t("settings.baseUrl")}
        <input
          type="url"
          pattern="https?://.+"
          title={t("settings.baseUrlHint")}
          placeholder="https://api.openai.com/v1"
          value={form.baseUrl}
          onChange={(event) => setForm({ ...form, baseUrl: event.target.value })}
          required
        />
      </label>
      <label>
        {t("settings.apiKey")}
        <input
          type="password"
          autoComplete="off"
          // Without a key the provider is never asked; a stored one belongs to its address.
          required={provider.data?.source !== "user" || form.baseUrl !== provider.data.base_url}
          value={form.apiKey}
          onChange={(event) => setForm({ ...form, apiKey: event.target.value })}
        />
        {provider.data?.has_api_key === true && <small className="muted">{t("settings.apiKeyStored")}</small>}
      </label>
      <label>
        {t("settings.models")}
        <input
          value={form.models}
          onChange={(event) => setForm({ ...form, models: event.target.value })}
          required
        />
        <small className="muted">{t("settings.modelsHint")}</small>
      </label>
      <ErrorNote error={provider.error ?? save.error ?? remove.error} />
      {done !== undefined && <p className="note good">{t(`settings.${done}`)}</p>}
      <div className="row end">
        {provider.data?.source === "user" && (
          <button type="button" disabled={remove.busy} onClick={() => remove.run()}>
            {t("settings.remove")}
          </button>
        )}
        <button type="submit" className="primary" disabled={save.busy}>
          {t("settings.save")}
        </button>
      </div>
    </form>
  );
}

function StudioKey() {
  const { t } = useTranslation();
  const [key, setKey] = useState<string | undefined>(undefined);
  const [revoked, setRevoked] = useState(false);
  const generate = useAction(async () => {
    setRevoked(false);
    setKey((await http<{ api_key: string }>("POST", "/auth/api-key/generate", {}, await getToken())).api_key);
  });
  const revoke = useAction(async () => {
    await http("DELETE", "/auth/api-key/revoke", undefined, await getToken());
    setKey(undefined);
    setRevoked(true);
  });
  return (
    <section className="column">
      <h3>{t("settings.studioKey")}</h3>
      <p className="muted">{t("settings.studioKeyText")}</p>
      {key !== undefined && (
        <p className="note">
          {t("settings.shownOnce")} <code>{key}</code>
        </p>
      )}
      {revoked && <p className="note good">{t("settings.revoked")}</p>}
      <ErrorNote error={generate.error ?? revoke.error} />
      <div className="row end">
        <button type="button" disabled={revoke.busy} onClick={() => revoke.run()}>
          {t("settings.revoke")}
        </button>
        <button type="button" disabled={generate.busy} onClick={() => generate.run()}>
          {t("settings.generate")}
        </button>
      </div>
    </section>
  );
}
