#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# uml.sh uml | san   builds User-Mode Linux from Debian's linux-source-6.1 in
#                    build/lab/KIND, with device-mapper and what else a test wants built
#                    in; some minutes.  Packages: linux-source-6.1 flex bison bc.
#
# uml: runs at the machine's own speed.  san: KASAN, lockdep, sleeping in atomic
# context, kmemleak, UBSAN, fault injection; some ten times slower.  Both have one CPU
# and no preemption by another: they find no races between CPUs.
#
# san needs four edits of the source: preemption counts, which tell atomic context,
# are switched off for this architecture; stacks are taken at each allocation, and
# walking frame pointers is four times faster than trying every word; the flush of
# its TLB walks the tree of mappings without RCU, which is reported at every boot;
# and after an interrupt of a file descriptor it takes a spinlock in the name of the
# task that it interrupted, which lockdep reports if that is within rcu_read_lock_sched
# ("Invalid wait context", a few seconds of I/O beside a loop that opens files).
set -euo pipefail
kind=$1
cd "$(dirname "$0")/../.."
lab=$PWD/build/lab src=$lab/linux-$1 out=$lab/$1
archive=/usr/src/linux-source-6.1.tar.xz
[ -e $archive ] || { echo "uml.sh: $archive is missing: install linux-source-6.1 flex bison bc" >&2; exit 1; }
if [ ! -e "$src/.unpacked" ]; then
	mkdir -p "$src"
	tar -xf $archive -C "$src" --strip-components=1
	touch "$src/.unpacked"
fi
mkdir -p "$out"
mk() { make -C "$src" O="$out" ARCH=um -j "${JOBS:-$(nproc)}" "$@"; }

on=(MD BLK_DEV_DM DM_UEVENT DM_THIN_PROVISIONING DM_SNAPSHOT DM_ZERO DM_DELAY DM_DUST DM_FLAKEY DM_LOG_WRITES LIBCRC32C
	BLK_DEV_RAM BLK_DEV_LOOP BLK_DEV_NULL_BLK HOSTFS OVERLAY_FS EROFS_FS EXT4_FS XFS_FS CONFIGFS_FS TMPFS TMPFS_XATTR
	DEBUG_FS DEVTMPFS DEVTMPFS_MOUNT MODULES MODULE_UNLOAD MAGIC_SYSRQ PRINTK_TIME)
off=()
must=(BLK_DEV_DM EROFS_FS HOSTFS)
if [ "$kind" = san ]; then
	sed -i '/select ARCH_NO_PREEMPT/d' "$src/arch/um/Kconfig"
	python3 - "$src/arch/um/kernel/stacktrace.c" "$src/arch/um/kernel/tlb.c" "$src/arch/um/drivers/chan_kern.c" <<'PY'
import sys

path = sys.argv[1]
text = open(path).read()
if "by frame pointers" not in text:
    begin = text.index("static void save_addr")
    end = text.index("void save_stack_trace(struct stack_trace")
    walk = """/* by frame pointers */
static noinline void __save_stack_trace(struct task_struct *tsk, struct stack_trace *trace)
{
	unsigned long bp = get_frame_pointer(tsk, tsk->thread.segv_regs), addr, next;
	unsigned long base = (unsigned long)get_stack_pointer(tsk, tsk->thread.segv_regs) & ~(THREAD_SIZE - 1UL);

	while (bp >= base && bp + 16 <= base + THREAD_SIZE && !(bp & 7) && trace->nr_entries < trace->max_entries) {
		addr = READ_ONCE_NOCHECK(*(unsigned long *)(bp + 8));
		if (!__kernel_text_address(addr))
			break;
		trace->entries[trace->nr_entries++] = addr;
		next = READ_ONCE_NOCHECK(*(unsigned long *)bp);
		if (next <= bp)
			break;
		bp = next;
	}
}

"""
    open(path, "w").write(text[:begin] + walk + text[end:])

path = sys.argv[2]
text = open(path).read()
if "rcu_read_lock" not in text:
    at = text.rindex("for_each_vma(vmi, vma)")
    end = text.index("\n}", at)
    open(path, "w").write(text[:at] + "rcu_read_lock();\n\t" + text[at:end] + "\n\trcu_read_unlock();" + text[end:])

path = sys.argv[3]
text = open(path).read()
if "list_empty(&irqs_to_free)" not in text:
    at = text.index("spin_lock_irqsave", text.index("void free_irqs"))
    open(path, "w").write(text[:at] + "if (list_empty(&irqs_to_free))\n\t\treturn;\n\t" + text[at:])
PY
	off+=(SOUND UML_SOUND REISERFS_FS DUMMY TUN PPP SLIP UML_NET QUOTA INET PACKET WLAN CC_OPTIMIZE_FOR_SIZE SLAB
		DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT DEBUG_KMEMLEAK_AUTO_SCAN DEBUG_KMEMLEAK_DEFAULT_OFF)
	on+=(CC_OPTIMIZE_FOR_PERFORMANCE SLUB DEBUG_INFO_NONE DEBUG_KERNEL KASAN KASAN_GENERIC KASAN_INLINE KASAN_STACK KASAN_VMALLOC
		STACKTRACE PROVE_LOCKING PROVE_RAW_LOCK_NESTING DEBUG_LOCK_ALLOC DEBUG_SPINLOCK DEBUG_MUTEXES DEBUG_RWSEMS
		DEBUG_ATOMIC_SLEEP DEBUG_LOCKDEP DEBUG_KMEMLEAK DEBUG_LIST DEBUG_SG SCHED_STACK_END_CHECK DEBUG_VM HARDENED_USERCOPY
		DEBUG_OBJECTS DEBUG_OBJECTS_FREE DEBUG_OBJECTS_TIMERS DEBUG_OBJECTS_WORK UBSAN UBSAN_BOUNDS UBSAN_SHIFT
		FAULT_INJECTION FAULT_INJECTION_DEBUG_FS FAILSLAB FAIL_PAGE_ALLOC FAIL_MAKE_REQUEST DETECT_HUNG_TASK WQ_WATCHDOG
		PAGE_POISONING)
	must+=(KASAN PROVE_LOCKING DEBUG_ATOMIC_SLEEP DEBUG_KMEMLEAK FAILSLAB)
fi
mk defconfig
config() { "$src/scripts/config" --file "$out/.config" "$@"; }
for o in ${off[@]+"${off[@]}"}; do config -d "$o"; done
for o in "${on[@]}"; do config -e "$o"; done
[ "$kind" = uml ] || config --set-val LOG_BUF_SHIFT 20 --set-val FRAME_WARN 4096 --set-val KERNEL_STACK_ORDER 3 \
	--set-val DEBUG_KMEMLEAK_MEM_POOL_SIZE 40000
mk olddefconfig
for o in "${must[@]}"; do
	grep -qx "CONFIG_$o=y" "$out/.config" || { echo "uml.sh: CONFIG_$o did not stay" >&2; exit 1; }
done
mk all
