import type { FastifyInstance, FastifyRequest } from "fastify";
import { clearPrice, listPrices, type OwnPrice, setPrice } from "#database/accounts/prices.ts";
import { parseInput } from "#platform/http/index.ts";
import { AppError, listPricesSchema, modelNameSchema, type PriceView, setPriceSchema } from "#schemas";
import type { AuthDeps } from "../register-auth.ts";

/** `/admin/prices` and `/admin/models/:name/price`: for administrators only; each change is in the log. */
export function registerPriceRoutes(app: FastifyInstance, deps: AuthDeps): void {
  const { db } = deps.database;
  const requireAdmin = (request: FastifyRequest) => deps.requireCaller(request, "admin");

  app.get("/admin/prices", async (request) => {
    await requireAdmin(request);
    const { cursor, limit } = parseInput(listPricesSchema, request.query);
    const { prices, more } = await listPrices(db, { after: readCursor(cursor), limit });
    const { inputPerMillion, cachedPerMillion, outputPerMillion } = deps.config.billing;
    const page = {
      defaults: {
        input_per_million: inputPerMillion,
        cached_per_million: cachedPerMillion,
        output_per_million: outputPerMillion,
      },
      models: prices.map(viewOf),
    };
    const last = prices.at(-1);
    return more && last !== undefined ? { ...page, next_cursor: writeCursor(last.model) } : page;
  });

  app.put("/admin/models/:name/price", async (request) => {
    const { user_id: by } = await requireAdmin(request);
    const model = modelOf(request);
    const body = parseInput(setPriceSchema, request.body);
    const price = {
      model,
      input: body.input_per_million,
      cached: body.cached_per_million ?? null,
      output: body.output_per_million,
    };
    await setPrice(db, price);
    deps.log.info({ by, ...price }, "price set by an administrator");
    return viewOf(price);
  });

  app.delete("/admin/models/:name/price", async (request) => {
    const { user_id: by } = await requireAdmin(request);
    const model = modelOf(request);
    const deleted = await clearPrice(db, model);
    deps.log.info({ by, model, deleted }, "price deleted by an administrator");
    return { deleted };
  });
}

function viewOf({ model, input, cached, output }: OwnPrice): PriceView {
  return { model, input_per_million: input, cached_per_million: cached, output_per_million: output };
}

/** Names have slashes, so they come URL-encoded. */
function modelOf(request: FastifyRequest): string {
  const { name } = request.params as { name: string };
  const model = modelNameSchema.safeParse(name);
  if (!model.success) throw new AppError("NotFound", "No model can have this name.");
  return model.data;
}

function writeCursor(model: string): string {
  return Buffer.from(model).toString("base64url");
}

/** @throws AppError InvalidParams for what `writeCursor` never wrote. */
function readCursor(cursor: string | undefined): string | undefined {
  if (cursor === undefined) return undefined;
  const model = modelNameSchema.safeParse(Buffer.from(cursor, "base64url").toString());
  if (model.success) return model.data;
  throw new AppError("InvalidParams", "cursor: not one this list gave out.", {
    issues: [{ path: "cursor", message: "not one this list gave out" }],
  });
}
