/** The virtual machine as QEMU's command line describes it: everything a guest can see of us is named here. */

const MIB = 1024 * 1024;
/** Translated code that is kept, per machine. */
const TRANSLATION_MIB = 64;

/** Where things are inside the jail. */
export const INSIDE = {
  kernel: "/vm/kernel",
  initrd: "/vm/initrd",
  rootfs: "/vm/rootfs",
  /** QEMU connects there; the server listens. */
  socket: "/vm/socket",
  /** Directory with a template's or snapshot's files. */
  saved: "/vm/saved",
  /** Directory for the memory of a machine that becomes a template. */
  ram: "/vm/ram",
  /** The memory of a machine made from a template: in the jail's own memory, gone with it. */
  copy: "/dev/shm/ram",
} as const;

/** Descriptor of the saved state, opened by the jail's shell. */
export const STATE_FD = 3;

export interface Machine {
  memoryBytes: number;
  cpus: number;
  /** The kernel's command line. */
  append: string;
  /** File that is the machine's memory; without it memory is anonymous. */
  ramFile?: string;
  /** Wait for a saved state instead of booting. */
  incoming: boolean;
}

/**
 * Arguments of qemu-system-x86_64. `-M pc` because under TCG `microvm` cannot calibrate its timers and Debian's kernel
 * finds no devices there. No network card, no disk that can be written, no monitor but ours, and by `-sandbox` no new
 * processes, no privileges and no other scheduling for QEMU itself.
 */
export function machineArguments(machine: Machine): string[] {
  const size = `${Math.floor(machine.memoryBytes / MIB)}M`;
  const backend =
    machine.ramFile === undefined
      ? `memory-backend-ram,id=memory,size=${size}`
      : `memory-backend-file,id=memory,size=${size},mem-path=${machine.ramFile},share=on`;
  return [
    ...["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    ...["-object", backend],
    ...["-M", "pc,usb=off,smm=off,vmport=off,sata=off,memory-backend=memory"],
    ...["-accel", `tcg,thread=multi,tb-size=${TRANSLATION_MIB}`, "-cpu", "max"],
    ...["-m", size, "-smp", String(machine.cpus)],
    ...["-kernel", INSIDE.kernel, "-initrd", INSIDE.initrd, "-append", machine.append],
    ...["-serial", "none", "-parallel", "none", "-vga", "none"],
    ...["-drive", `file=${INSIDE.rootfs},if=none,id=root,format=raw,readonly=on,file.locking=off`],
    ...["-device", "virtio-blk-pci,drive=root"],
    ...["-device", "virtio-serial-pci"],
    ...["-chardev", `socket,id=agent,path=${INSIDE.socket}`],
    ...["-device", "virtserialport,chardev=agent,name=cds.agent"],
    ...["-chardev", "stdio,id=monitor,signal=off", "-mon", "chardev=monitor,mode=control"],
    ...(machine.incoming ? ["-incoming", "defer"] : []),
  ];
}
