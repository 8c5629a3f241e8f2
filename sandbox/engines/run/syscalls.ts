/** The numbers of the system calls the filter knows, per architecture. */
export interface SyscallTable {
  /** AUDIT_ARCH_* of linux/audit.h, as the filter sees it. */
  readonly audit: number;
  /** Whether numbers from 0x40000000 name the x32 variants. */
  readonly x32: boolean;
  /** Refused whatever their arguments. */
  readonly denied: Readonly<Record<string, number>>;
  readonly clone: number;
  readonly clone3: number;
  readonly ioctl: number;
  readonly socket: number;
  readonly socketpair: number;
}

/** Calls numbered alike on every architecture since the tables were unified (Linux 5.1). */
const UNIFIED = {
  io_uring_setup: 425,
  io_uring_enter: 426,
  io_uring_register: 427,
  open_tree: 428,
  move_mount: 429,
  fsopen: 430,
  fsconfig: 431,
  fsmount: 432,
  fspick: 433,
  pidfd_getfd: 438,
  process_madvise: 440,
  mount_setattr: 442,
  quotactl_fd: 443,
  memfd_secret: 447,
  process_mrelease: 448,
  set_mempolicy_home_node: 450,
  open_tree_attr: 467,
} as const;

const X64: SyscallTable = {
  audit: 0xc000003e,
  x32: true,
  clone: 56,
  clone3: 435,
  ioctl: 16,
  socket: 41,
  socketpair: 53,
  denied: {
    ...UNIFIED,
    ptrace: 101,
    syslog: 103,
    uselib: 134,
    personality: 135,
    modify_ldt: 154,
    pivot_root: 155,
    chroot: 161,
    acct: 163,
    mount: 165,
    umount2: 166,
    swapon: 167,
    swapoff: 168,
    reboot: 169,
    iopl: 172,
    ioperm: 173,
    init_module: 175,
    delete_module: 176,
    quotactl: 179,
    nfsservctl: 180,
    lookup_dcookie: 212,
    mbind: 237,
    set_mempolicy: 238,
    kexec_load: 246,
    add_key: 248,
    request_key: 249,
    keyctl: 250,
    migrate_pages: 256,
    unshare: 272,
    vmsplice: 278,
    move_pages: 279,
    perf_event_open: 298,
    fanotify_init: 300,
    name_to_handle_at: 303,
    open_by_handle_at: 304,
    setns: 308,
    process_vm_readv: 310,
    process_vm_writev: 311,
    kcmp: 312,
    finit_module: 313,
    kexec_file_load: 320,
    bpf: 321,
    userfaultfd: 323,
  },
};

const ARM64: SyscallTable = {
  audit: 0xc00000b7,
  x32: false,
  clone: 220,
  clone3: 435,
  ioctl: 29,
  socket: 198,
  socketpair: 199,
  denied: {
    ...UNIFIED,
    lookup_dcookie: 18,
    umount2: 39,
    mount: 40,
    pivot_root: 41,
    nfsservctl: 42,
    chroot: 51,
    quotactl: 60,
    vmsplice: 75,
    acct: 89,
    personality: 92,
    unshare: 97,
    kexec_load: 104,
    init_module: 105,
    delete_module: 106,
    syslog: 116,
    ptrace: 117,
    reboot: 142,
    add_key: 217,
    request_key: 218,
    keyctl: 219,
    swapon: 224,
    swapoff: 225,
    mbind: 235,
    set_mempolicy: 237,
    migrate_pages: 238,
    move_pages: 239,
    perf_event_open: 241,
    fanotify_init: 262,
    name_to_handle_at: 264,
    open_by_handle_at: 265,
    setns: 268,
    process_vm_readv: 270,
    process_vm_writev: 271,
    kcmp: 272,
    finit_module: 273,
    bpf: 280,
    userfaultfd: 282,
    kexec_file_load: 294,
  },
};

/** By Node's name of the architecture (`process.arch`). */
export const SYSCALL_TABLES: Readonly<Record<string, SyscallTable>> = { x64: X64, arm64: ARM64 };
