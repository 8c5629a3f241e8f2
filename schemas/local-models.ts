import { z } from "zod";

/** What a model of this machine can be called. */
export const localModelNameSchema = z
  .string()
  .regex(
    /^[A-Za-z0-9][\w.-]{0,127}$/,
    "1 to 128 letters, digits and . _ - only, starting with a letter or digit",
  );

/** How a model is to be loaded; what is left out is the server's choice. */
export const loadConfigSchema = z.strictObject({
  threads: z.number().int().min(1).max(256).optional(),
  /** Tokens one request can hold, prompt and answer. */
  context_size: z.number().int().min(32).max(10_000_000).optional(),
  /** Requests worked on together. */
  sequences: z.number().int().min(1).max(256).optional(),
  /** Used where a request names none. */
  temperature: z.number().min(0).max(2).optional(),
  /** Layers on the GPU: none, as many as fit, or so many. */
  gpu: z.union([z.literal(false), z.literal("auto"), z.number().int().min(0).max(1000)]).optional(),
});
export type LoadConfig = z.infer<typeof loadConfigSchema>;

export const loadModelSchema = z.strictObject({
  model_id: localModelNameSchema,
  /** Kept for later loads, too; left out: as it was kept. */
  config: loadConfigSchema.optional(),
});
export const unloadModelSchema = z.strictObject({ model_id: localModelNameSchema });
export const downloadModelSchema = z.strictObject({
  huggingface_url: z.string().min(1).max(1024),
  /** Left out: the file's name without `.gguf`. */
  model_id: localModelNameSchema.optional(),
});

/** A model of this machine as an administrator sees it. */
export interface LocalModelView {
  name: string;
  /** Within the models directory. */
  file: string;
  /** Null until it was loaded once. */
  kind: "chat" | "embedding" | null;
  size_bytes: number | null;
  /** Of files that were downloaded, in hex. */
  sha256: string | null;
  huggingface_url: string | null;
  /** False after an administrator unloaded it. */
  enabled: boolean;
  is_loaded: boolean;
  state: "unloaded" | "loading" | "loaded" | "unloading";
  config: LoadConfig;
  price: {
    input_per_million: number;
    cached_per_million: number;
    output_per_million: number;
  };
  added_at: string | null;
}

export type DownloadState =
  | "queued"
  | "resolving"
  | "downloading"
  | "verifying"
  | "done"
  | "failed"
  | "cancelled";

/** A download of a model's file. */
export interface DownloadView {
  id: string;
  /** Null while the file's name is not known. */
  model_id: string | null;
  url: string;
  state: DownloadState;
  bytes: number;
  /** 0 while it is not known. */
  total: number;
  bytes_per_second: number;
  error?: { code: string; message: string; hint?: string };
  started_at: string;
  ended_at: string | null;
}

/** A loaded model and what it takes. */
export interface LoadedModelView {
  model_id: string;
  kind: "chat" | "embedding";
  architecture: string;
  pid: number;
  /** Resident, bytes. */
  memory_bytes: number;
  threads: number;
  context_size: number;
  sequences: number;
  /** Requests in work or waiting. */
  sessions: number;
  loaded_at: string;
}

/** What models take of this machine. */
export interface LocalModelsStatus {
  memory: {
    total_bytes: number;
    available_bytes: number;
    /** Never given to a model. */
    reserve_bytes: number;
  };
  models: LoadedModelView[];
  /** Downloads under way or waiting. */
  downloads: number;
}
