import type { Availability, SandboxLog } from "../../../types.ts";
import type { DriverVm, MicroDriver } from "../driver.ts";
import { AppError } from "#schemas";

export class MicrosandboxDriver implements MicroDriver {
  readonly name = "microsandbox";
  readonly overheadBytes = 0;
  constructor(_input: { dir: string; imageDir?: string | undefined; log: SandboxLog }) {}
  async probe(): Promise<Availability> {
    return { available: false, tier: null, reasons: ["not yet"] };
  }
  async start(): Promise<DriverVm> {
    throw new AppError("EngineUnavailable", "not yet");
  }
  async restore(): Promise<DriverVm> {
    throw new AppError("EngineUnavailable", "not yet");
  }
  async fingerprint(): Promise<string> {
    return "";
  }
  async close(): Promise<void> {}
}
