/** The part of the package for terminals that the keeper uses: its binding, without its way of starting programs. */
declare module "@lydell/node-pty/requireBinary.js" {
  interface PtyBinding {
    /** Two file descriptors, and the path of the second. */
    open(cols: number, rows: number): { master: number; slave: number; pty: string };
    resize(master: number, cols: number, rows: number): void;
  }

  /** Throws where the package has nothing for this platform. */
  export function requireBinary(file: "pty.node"): PtyBinding;
}
