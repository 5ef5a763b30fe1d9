# vd: plain make, nothing generated.  `make help` lists the targets.
#
#   FLAVOUR=         (none) optimised · asan: address,undefined · tsan: thread
#   V=1              show commands
#   VD_TEST_SCALE=N  per cent of each model, crash and fuzz test's own budget
#
# Objects mirror the tree under $(B): build/ or build/$(FLAVOUR)/.  A test says
# what it is linked from in its first line, `/* link: a.c b/c.c */`; without
# that line it gets the whole of libvol and of the engine, and the other .c
# files of its directory.

SHELL := /bin/bash
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PREFIX ?= /usr
SYSCONFDIR ?= /etc
MULTIARCH := $(shell $(CC) -print-multiarch 2>/dev/null)
LIBDIR ?= $(PREFIX)/lib/$(MULTIARCH)
NBDKIT_PLUGINDIR ?= $(LIBDIR)/nbdkit/plugins
UDEVDIR ?= $(PREFIX)/lib/udev
UNITDIR ?= $(PREFIX)/lib/systemd/system
FLAVOUR ?=
B := build$(if $(FLAVOUR),/$(FLAVOUR))
Q := $(if $(V),,@)
say = @$(if $(V),true,printf '  %-6s %s\n' $(1) $(2))

CC := gcc
WARN := -Wall -Wextra -Werror -Wmissing-prototypes -Wstrict-prototypes -Wvla
CFLAGS ?= -O2 -g
BASE_CFLAGS := -std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 $(WARN) -fPIC -pthread
ENGINE_CFLAGS := -fno-strict-aliasing -Wframe-larger-than=1024
ifeq ($(FLAVOUR),asan)
SAN := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
else ifeq ($(FLAVOUR),tsan)
SAN := -fsanitize=thread -fno-omit-frame-pointer
else ifneq ($(FLAVOUR),)
$(error FLAVOUR is empty, asan or tsan)
endif
# The sanitisers' own redzones make frames larger and spoil flow warnings.
ifneq ($(SAN),)
ENGINE_CFLAGS := -fno-strict-aliasing
BASE_CFLAGS += -Wno-maybe-uninitialized -Wno-stringop-overflow -Wno-stringop-truncation -Wno-format-truncation
endif
INCLUDES := -I. -Idm-target/core -Ilibvol
ALL_CFLAGS = $(BASE_CFLAGS) $(INCLUDES) $(CFLAGS) $(SAN)
ALL_LDFLAGS = $(LDFLAGS) $(SAN) -pthread -Wl,--as-needed
LIBS := -ljson-c -lblkid -luuid -ludev -ldevmapper $(if $(wildcard /usr/include/isa-l*),-lisal)
CMD_LIBS := -lpopt

ENGINE_SRC := $(wildcard dm-target/core/*.c)
PLUGIN_SRC := $(wildcard libvol/nbdkit-*.c)
LIBVOL_SRC := $(filter-out $(PLUGIN_SRC),$(wildcard libvol/*.c))
CMD_COMMON := $(wildcard cmd/common*.c)
CMDS := $(patsubst cmd/%.c,%,$(filter-out $(CMD_COMMON),$(wildcard cmd/vd*.c)))
comma := ,
obj = $(patsubst %.c,$(B)/%.o,$(1))
ENGINE_OBJ := $(call obj,$(ENGINE_SRC))
LIBVOL_OBJ := $(call obj,$(LIBVOL_SRC))
VERSION_SCRIPT := $(addprefix -Wl$(comma)--version-script=,$(wildcard libvol/libvol.map))

# libvol/nbdkit-plugin.c is the server; any other nbdkit-X.c is nbdkit-vdX-plugin.
plugin_name = $(patsubst nbdkit-%,nbdkit-vd%-plugin,$(filter-out nbdkit-plugin,$(1)))$(if $(filter nbdkit-plugin,$(1)),nbdkit-vd-plugin)
PLUGINS := $(foreach s,$(PLUGIN_SRC),$(call plugin_name,$(basename $(notdir $(s)))))

.PHONY: all help deps check check-unit check-model check-crash check-format check-cmd check-asan check-tsan \
	check-static soak fuzz-smoke bench-engine demo demo-lab install uninstall clean libs cmds plugins
.DEFAULT_GOAL := all

all: libs cmds plugins
libs: $(B)/libvol.a $(B)/libvol.so
cmds: $(addprefix $(B)/,$(CMDS))
plugins: $(patsubst %,$(B)/%.so,$(PLUGINS))

help:
	@echo 'make            libraries, commands and nbdkit plugins, in build/'
	@echo 'make deps       install the Debian packages that are missing (root)'
	@echo 'make demo       the main job, shown end to end (root)'
	@echo 'make demo-lab   the same on a real kernel with the module, in QEMU; LAB_KERNEL=6.1 or 6.12 (root)'
	@echo 'make check      every test that takes minutes; ends in one line "N passed, N failed" (root)'
	@echo 'make check-unit | check-model | check-crash | check-format | check-cmd | check-static | check-modules'
	@echo 'make check-asan | check-tsan | fuzz-smoke'
	@echo 'make soak SECONDS=3600   model and crash tests from fresh seeds, as long as asked'
	@echo 'make bench-engine        the speed table of tests/bench/README.md'
	@echo 'make bench-kernel        the module beside dm-thin and LVM, in the lab; BENCH_REPS=3, PARTS= of kernel.sh'
	@echo 'make install DESTDIR= PREFIX=/usr'
	@echo 'make modules KVER=        dm-vd.ko for that kernel (its headers are wanted), in build/modules/'
	@echo 'make lab | check-lab      a shell in a real kernel with the module; its tests there (make lab-deps first)'
	@echo 'make check-lab-cmd        what check-cmd tests, in real kernels with the module instead of a server; long'
	@echo 'make soak-lab KILLS=1000  machines killed at so many moments under load, each looked at'
	@echo 'make modules_install      and where that kernel finds it (root)'
	@echo 'make dkms-install | dkms-remove   it, for every kernel that has headers or will have them (root)'

# ---- what must be installed ----------------------------------------------

DEB_BUILD := gcc libc6-dev pkg-config libpopt-dev libjson-c-dev libblkid-dev uuid-dev \
	libudev-dev libdevmapper-dev libisal-dev nbdkit-plugin-dev libnbd-dev libgnutls28-dev
DEB_RUN := nbdkit libnbd-bin fuse3 e2fsprogs xfsprogs util-linux mount procps jq
DEB_TEST := libcmocka-dev bats openssl fio fdisk python3 qemu-utils strace clang libclang-rt-14-dev llvm mandoc binutils
DEB_ALL := $(DEB_BUILD) $(DEB_RUN) $(DEB_TEST)
DEB_LAB := qemu-system-x86 mmdebstrap erofs-utils busybox-static cpio xz-utils kmod make dkms openssl sparse linux-image-amd64 linux-headers-amd64 \
	linux-image-6.12-amd64 linux-headers-6.12-amd64
DEB_UML := linux-source-6.1 flex bison bc
stamp_of = build/.deps-$(shell echo $(1) | cksum | cut -d' ' -f1)
DEPS_STAMP := $(call stamp_of,$(DEB_ALL))
LAB_STAMP := $(call stamp_of,$(DEB_LAB) $(DEB_UML))

deps: $(DEPS_STAMP)
lab-deps: deps $(LAB_STAMP)
$(DEPS_STAMP): PACKAGES := $(DEB_ALL)
$(LAB_STAMP): PACKAGES := $(DEB_LAB) $(DEB_UML)
$(DEPS_STAMP) $(LAB_STAMP):
	@mkdir -p build; missing=; \
	for p in $(PACKAGES); do \
		dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; \
	done; \
	if [ -n "$$missing" ]; then \
		echo "installing:$$missing"; \
		if [ $$(id -u) != 0 ]; then \
			echo "these packages are missing; run 'sudo make $(if $(filter $(LAB_STAMP),$@),lab-deps,deps)', or: sudo apt-get install$$missing" >&2; exit 1; \
		fi; \
		apt-get update -qq >build/deps.log 2>&1 && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >>build/deps.log 2>&1 || \
			{ tail -20 build/deps.log >&2; echo "could not install:$$missing (see build/deps.log)" >&2; exit 1; }; \
	fi; touch $@

# A build on a machine that lacks the headers installs them first (as root) or says what to install.
$(ENGINE_OBJ) $(LIBVOL_OBJ): | $(DEPS_STAMP)

# ---- build ---------------------------------------------------------------

serve_CFLAGS = -DVD_PLUGINDIR='"$(NBDKIT_PLUGINDIR)"'

$(B)/dm-target/core/%.o: dm-target/core/%.c
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(ENGINE_CFLAGS) -MMD -MP -c -o $@ $<
$(B)/%.o: %.c | $(DEPS_STAMP)
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $($(notdir $*)_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/libvol.a: $(ENGINE_OBJ) $(LIBVOL_OBJ)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar crs $@ $^
$(B)/libvol.so: $(ENGINE_OBJ) $(LIBVOL_OBJ) $(wildcard libvol/libvol.map)
	$(call say,LD,$@)
	$(Q)$(CC) -shared -Wl,-soname,libvol.so.1 $(ALL_LDFLAGS) $(VERSION_SCRIPT) \
		-o $@ $(ENGINE_OBJ) $(LIBVOL_OBJ) $(LIBS)

# Commands carry the library: one file each, nothing to find at run time.
$(B)/vdcreate $(B)/vdlink $(B)/vdsnap: $(B)/cmd/link.o
$(B)/vdagent: $(call obj,$(wildcard cmd/agent*.c))
$(B)/vdagent: CMD_LIBS += -lgnutls
$(addprefix $(B)/,$(CMDS)): $(B)/%: $(B)/cmd/%.o $(call obj,$(CMD_COMMON)) $(B)/libvol.a
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LIBS) $(CMD_LIBS)

define plugin_rule
$(B)/$(2).so: $(B)/$(1:.c=.o) $(B)/libvol.a
	$$(call say,LD,$$@)
	$$(Q)$$(CC) -shared $$(ALL_LDFLAGS) -o $$@ $$^ $$(LIBS)
endef
$(foreach s,$(PLUGIN_SRC),$(eval $(call plugin_rule,$(s),$(call plugin_name,$(basename $(notdir $(s)))))))

# ---- tests ---------------------------------------------------------------

UNIT_SRC := $(wildcard tests/unit/test_*.c)
MODEL_SRC := $(wildcard tests/model/test_*.c)
BENCH_SRC := $(wildcard tests/bench/bench_*.c)
tests_of = $(patsubst %.c,$(B)/%,$(1))
# Objects a test is linked from: its own list, or its directory's helpers and everything.
link_of = $(shell sed -n '1s@^/\* *link:\(.*\)\*/.*@\1@p' $(1))
helpers_of = $(filter-out $(dir $(1))test_% $(dir $(1))bench_%,$(wildcard $(dir $(1))*.c))
define test_rule
$(B)/$(1:.c=): $(B)/$(1:.c=.o) $(if $(call link_of,$(1)),$(call obj,$(call link_of,$(1))),$(call obj,$(call helpers_of,$(1))) $(B)/libvol.a) | $(DEPS_STAMP)
	$$(call say,LD,$$@)
	$$(Q)$$(CC) $$(ALL_LDFLAGS) -o $$@ $$(filter %.o %.a,$$^) $$(LIBS) -lcmocka -lm
endef
$(foreach t,$(UNIT_SRC) $(MODEL_SRC) $(BENCH_SRC),$(eval $(call test_rule,$(t))))

# Names carry the kind: test_crash*.c are crash tests.  ThreadSanitizer runs what starts
# threads, but for test_tree: one of its tests does, and the others take minutes there.
CRASH_SRC := $(wildcard tests/model/test_crash*.c)
PURE_MODEL_SRC := $(filter-out $(CRASH_SRC),$(MODEL_SRC))
THREAD_SRC := $(filter-out tests/unit/test_tree.c,$(shell grep -l pthread_create $(UNIT_SRC) $(MODEL_SRC)))
RUN := tests/run.sh

# Two at a time: what takes longest is begun first.
LONG := %/server-nvme.bats %/server-vm.bats %/server-virt.bats %/agent-drives.bats %/test_model.c %/test_cases.c %/test_room.c %/test_faults.c %/kill.bats %/dry.bats %/link.bats %/damage.bats
long_first = $(filter $(LONG),$(1)) $(filter-out $(LONG),$(1))
define run_programs
	+@$(MAKE) --no-print-directory FLAVOUR=$(1) build-tests SRC="$(2)"
	@$(RUN) $(3) $(patsubst %.c,build/$(if $(1),$(1)/)%,$(call long_first,$(2)))
endef
.PHONY: build-tests
build-tests: $(call tests_of,$(SRC))

check-unit: ; $(call run_programs,,$(UNIT_SRC),unit)
check-model: ; $(call run_programs,,$(PURE_MODEL_SRC),model)
check-crash: ; $(call run_programs,,$(CRASH_SRC),crash)
check-asan: ; $(call run_programs,asan,$(UNIT_SRC) $(MODEL_SRC),asan)
check-tsan: ; $(call run_programs,tsan,$(THREAD_SRC),tsan)
check-asan: export VD_TEST_SCALE := $(if $(VD_TEST_SCALE),$(VD_TEST_SCALE),5)
check-tsan: export VD_TEST_SCALE := $(if $(VD_TEST_SCALE),$(VD_TEST_SCALE),5)
check-cmd: all ; @$(RUN) cmd $(call long_first,$(wildcard tests/cmd/*.bats))

# Pools for the other reader of the format, in Python, which shares nothing with the engine.
IMAGES_SRC := $(wildcard tests/format/*.c) $(filter-out $(MODEL_SRC),$(wildcard tests/model/*.c))
$(B)/tests/format/images: $(call obj,$(IMAGES_SRC)) $(B)/libvol.a
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)
check-format: all $(B)/tests/format/images ; @$(RUN) format $(wildcard tests/format/test_*.py)

# Sub-suites in one list, so that one of them failing does not hide the others.
CHECKS := check-static check-modules check-unit check-model check-crash check-format fuzz-smoke check-asan check-tsan check-cmd check-lab-short
# What the lab needs comes first: some of check-cmd needs QEMU, too.
check: lab-deps
	+@rm -rf build/results; mkdir -p build/results; \
	$(MAKE) --no-print-directory -j2 all; built=$$?; \
	[ $$built = 0 ] || echo "not ok build" >build/results/build.tap; \
	for t in $(CHECKS); do \
		echo "== $$t"; $(MAKE) --no-print-directory -j2 $$t || [ -s build/results/$${t#check-}.tap ] || \
			echo "not ok $$t: did not finish" >build/results/$${t#check-}.tap; \
	done; $(RUN) --total

soak: SECONDS_ := $(or $(SECONDS),3600)
soak:
	+@$(MAKE) --no-print-directory build-tests SRC="$(MODEL_SRC)"
	@VD_SOAK_SECONDS=$(SECONDS_) $(RUN) soak $(call tests_of,$(MODEL_SRC))

# ---- fuzzing: tests/fuzz/fuzz_X.c, corpus in tests/fuzz/corpus/X ----------

FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ_HELP := $(filter-out $(FUZZ_SRC),$(wildcard tests/fuzz/*.c))
FUZZ_SECONDS ?= 15
FUZZ_CFLAGS := -std=gnu11 -D_GNU_SOURCE -O1 -g -Wall -fno-strict-aliasing -fno-omit-frame-pointer -pthread $(INCLUDES) \
	-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
fuzz_obj = $(patsubst %.c,build/fuzz/%.o,$(1))
build/fuzz/%.o: %.c | $(DEPS_STAMP)
	$(call say,CLANG,$<)
	@mkdir -p $(@D)
	$(Q)clang $(FUZZ_CFLAGS) -MMD -MP -c -o $@ $<
$(patsubst tests/fuzz/%.c,build/fuzz/%,$(FUZZ_SRC)): build/fuzz/%: build/fuzz/tests/fuzz/%.o \
		$(call fuzz_obj,$(FUZZ_HELP) $(ENGINE_SRC) $(LIBVOL_SRC))
	$(call say,LD,$@)
	$(Q)clang -fsanitize=fuzzer,address,undefined -pthread -Wl,--as-needed -o $@ $^ $(LIBS)
.PHONY: fuzz
fuzz: $(patsubst tests/fuzz/%.c,build/fuzz/%,$(FUZZ_SRC))
fuzz-smoke: fuzz
	@FUZZ_SECONDS=$(FUZZ_SECONDS) $(RUN) fuzz $(patsubst tests/fuzz/%.c,build/fuzz/%,$(FUZZ_SRC))

# ---- checks on the source itself ------------------------------------------

# What the engine may call that it does not define (style.md, habit 3).
ENGINE_MAY_CALL := memcpy memset memcmp memmove strlen strcmp strchr strncmp memchr strnlen \
	vd_port_cpu vd_port_crc32c __stack_chk_fail _GLOBAL_OFFSET_TABLE_ \
	pthread_mutex_init pthread_mutex_destroy pthread_mutex_lock pthread_mutex_unlock pthread_mutex_trylock \
	pthread_rwlockattr_init pthread_rwlockattr_setkind_np pthread_rwlockattr_destroy pthread_rwlock_init pthread_rwlock_destroy pthread_rwlock_rdlock pthread_rwlock_wrlock pthread_rwlock_tryrdlock pthread_rwlock_trywrlock pthread_rwlock_unlock sched_yield \
	pthread_cond_init pthread_cond_destroy pthread_cond_wait pthread_cond_timedwait pthread_cond_broadcast
SOURCES := $(shell find dm-target libvol cmd tests -name '*.[ch]' -o -name '*.sh' -o -name '*.bats' -o -name '*.py')
check-static: $(if $(FLAVOUR),,$(ENGINE_OBJ))
	@mkdir -p build/results; exec > >(tee build/results/static.tap); n=0; \
	t() { n=$$((n+1)); if [ -z "$$2" ]; then echo "ok $$n $$1"; else echo "not ok $$n $$1"; sed 's/^/# /' <<<"$$2"; bad=1; fi; }; \
	t 'the engine calls only what it may' "$$(nm -u $(ENGINE_OBJ) /dev/null 2>/dev/null | awk 'NF==2{print $$2}' | sort -u | \
		grep -vxF -f <({ nm --defined-only $(ENGINE_OBJ) /dev/null 2>/dev/null | awk 'NF==3{print $$3}'; tr ' ' '\n' <<<"$(ENGINE_MAY_CALL)"; }))"; \
	t '__KERNEL__ is tested in one file of the engine' "$$(grep -rl '__KERNEL__' dm-target/core | grep -vx dm-target/core/port.h)"; \
	t 'kernel versions are tested in one file' "$$(grep -rl 'LINUX_VERSION_CODE' dm-target | grep -vx dm-target/compat.h)"; \
	t 'the engine formats no strings and divides no 64-bit variables by floats' "$$(grep -nE '\b(s?n?printf|double|float)\b[ (]' $(ENGINE_SRC) /dev/null | grep -v '^\S*: *\*')"; \
	t 'every source carries its licence' "$$(grep -L 'SPDX-License-Identifier' $(SOURCES) /dev/null | grep -v /dev/null)"; \
	t 'no source is much longer than a thousand lines' "$$(wc -l $(filter %.c,$(SOURCES)) | awk '$$2!="total" && $$1>1300')"; \
	for m in $(sort $(wildcard man/*.[1-8])); do t "$$m has no faults" "$$(mandoc -T lint -W warning $$m 2>&1 | grep -E 'WARNING|ERROR|FATAL|UNSUPP' | grep -v 'referenced manual not found')"; done; \
	for c in $(CMDS); do t "$$c has a man page" "$$([ -e man/$$c.8 ] || echo "man/$$c.8 is missing")"; done; \
	echo "1..$$n"; [ -z "$$bad" ]

# ---- the kernel module ------------------------------------------------------
# Built in build/modules/$(KVER)/, where every source is a link: nothing is left in the
# tree, and each kernel has its own objects.

KVER ?= $(shell for k in "$$(uname -r)" $$(ls -r /lib/modules 2>/dev/null); do \
	[ -e /lib/modules/$$k/build/Makefile ] && echo $$k && break; done)
KDIR ?= /lib/modules/$(KVER)/build
KARCH ?=
# Another module: where its sources are, and where it is built.
MSRC ?= dm-target
MB := build/modules/$(KVER)
kbuild = $(MAKE) -C $(KDIR) M=$(CURDIR)/$(MB) $(if $(KARCH),ARCH=$(KARCH)) $(if $(V),V=1) W=1 VD_VERSION=$(VERSION) $(KBUILD_ARGS)
.PHONY: modules modules_install module-tree
module-tree:
	@if [ ! -e $(KDIR)/Makefile ]; then echo 'no headers of a kernel: install linux-headers-amd64, or say KVER= or KDIR=' >&2; exit 1; fi
	@mkdir -p $(MB); find $(MB) -type l -delete; cp -rs $(CURDIR)/$(MSRC)/. $(MB)/
modules: module-tree
	+$(Q)$(kbuild) modules
# For each kernel of the lab: no warning of the compiler's (W=1), nor of sparse.
.PHONY: check-modules
check-modules:
	@mkdir -p build/results build/logs; exec > >(tee build/results/modules.tap); n=0; bad=; \
	for h in $(wildcard $(LAB_KERNELS:%=/lib/modules/%.*/build/Makefile)); do \
		k=$${h#/lib/modules/}; k=$${k%%/*}; log=build/logs/modules-$$k; n=$$((n+1)); rm -rf build/sparse; \
		if $(MAKE) --no-print-directory modules KVER=$$k MB=build/sparse KBUILD_ARGS='C=2 CF=-D__CHECK_ENDIAN__' >$$log 2>&1 && \
			! grep -E ': (warning|error):' $$log >$$log.bad; then echo "ok $$n the module for $$k: no warning"; \
		else echo "not ok $$n the module for $$k: no warning"; { grep . $$log.bad || tail -n 20 $$log; } | sed 's/^/# /'; bad=1; fi; \
	done; rm -rf build/sparse; echo "1..$$n"; [ -z "$$bad" ]
# Debian's kernels ask for a signature with a key that is not in the headers; and without
# System.map, which is not there either, depmod would be left out.
modules_install: module-tree
	+$(Q)$(kbuild) $(if $(DESTDIR),INSTALL_MOD_PATH=$(DESTDIR)) $(if $(wildcard $(KDIR)/certs/signing_key.pem),,CONFIG_MODULE_SIG_ALL=) modules_install
	$(if $(DESTDIR),,$(Q)PATH=$$PATH:/usr/sbin:/sbin depmod $(KVER))

# packaging/dkms.sh tells; KVERS= the kernels, if not all that have headers.
VERSION := $(shell sed -n 's/^\#define VD_VERSION "\(.*\)"/\1/p' cmd/common.c)
.PHONY: dkms-install dkms-remove
dkms-install: ; @DESTDIR='$(DESTDIR)' packaging/dkms.sh install $(VERSION) $(KVERS)
dkms-remove: ; @DESTDIR='$(DESTDIR)' packaging/dkms.sh remove

# ---- the lab: real kernels (tests/lab/README.md) ------------------------------

LAB_DISKS ?= build/lab/disk0:1G build/lab/disk1:1G build/lab/disk2:1G
LAB_KERNELS := 6.1 6.12
.PHONY: lab lab-deps check-lab check-lab-cmd check-lab-short check-lab-san soak-lab
lab: all
	@exec tests/lab/lab.sh -b $(if $(LAB_KERNEL),-k $(LAB_KERNEL)) $(addprefix -d ,$(LAB_DISKS))
# What runs in guests, and looks at what they leave.
LAB_PROGRAMS := $(patsubst %.c,$(B)/%,$(wildcard tests/lab/*.c))
$(LAB_PROGRAMS): $(B)/%: $(B)/%.o $(B)/libvol.a
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS) -lnbd
check-lab: all fuzz $(LAB_PROGRAMS) ; @JOBS=1 TEST_TIMEOUT=10800 $(RUN) lab $(addprefix tests/lab/,kernel.bats proof.bats commands.bats vm.bats agent.bats nvme.bats boot.bats faults.bats mishaps.bats install.bats)
# Of these, and of check-lab-cmd, what `make check` has time for: by the tags "short" and "kernel".
check-lab-short: lab-deps all fuzz $(LAB_PROGRAMS)
	@r=0; TAGS=short $(RUN) lab $(addprefix tests/lab/,kernel.bats proof.bats commands.bats vm.bats) || r=1; \
	$(RUN) kernel6.12 tagged || r=1; exit $$r
soak-lab: all fuzz $(LAB_PROGRAMS) ; @JOBS=1 TEST_TIMEOUT=1000000 KILLS=$(KILLS) $(RUN) lab tests/lab/soak.bats
# The suites of check-cmd where the kernel serves.
check-lab-cmd: all
	@r=0; for k in $(LAB_KERNELS); do $(RUN) kernel$$k $(wildcard tests/cmd/*.bats) || r=1; done; exit $$r
check-lab-san: all ; @JOBS=1 TEST_TIMEOUT=3600 $(RUN) lab tests/lab/sanitised.bats

bench-engine: all $(call tests_of,$(BENCH_SRC))
	@if [ -x tests/bench/run.sh ]; then exec tests/bench/run.sh; else echo 'tests/bench/run.sh is not there yet' >&2; exit 1; fi

# The module beside the kernel's own targets, in guests: half an hour on an idle machine.
.PHONY: bench-kernel
bench-kernel: lab-deps all $(call tests_of,$(BENCH_SRC))
	@exec tests/bench/kernel.sh $(PARTS)

demo: deps
	+@$(MAKE) --no-print-directory -j2 all
	@exec tests/demo.sh
demo-lab: lab-deps
	+@$(MAKE) --no-print-directory -j2 all
	@exec tests/lab/demo.sh $(LAB_KERNEL)

# ---- install ---------------------------------------------------------------

# Between device-mapper's own two, which Debian has moved from 10 and 13 to 55 and 60.
DM_RULES ?= $(if $(wildcard /lib/udev/rules.d/55-dm.rules /usr/lib/udev/rules.d/55-dm.rules),56,11)-dm-vd.rules
UNITS := $(wildcard packaging/systemd/*.service)
# In place of systemctl enable: it is systemctl mask that says no.
WANTS := sysinit.target.wants/vd-shutdown.service multi-user.target.wants/vd-links.service multi-user.target.wants/vdagent.service
rules_name = $$(basename $(1) | sed 's/^11-dm-vd.rules$$/$(DM_RULES)/')
install: all
	install -d $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(LIBDIR) $(DESTDIR)$(NBDKIT_PLUGINDIR) $(DESTDIR)$(PREFIX)/include/vd \
		$(DESTDIR)$(SYSCONFDIR)/vd
	install -m 755 $(addprefix $(B)/,$(CMDS)) $(DESTDIR)$(PREFIX)/sbin
	install -m 755 $(B)/libvol.so $(DESTDIR)$(LIBDIR)/libvol.so.1
	ln -sf libvol.so.1 $(DESTDIR)$(LIBDIR)/libvol.so
	install -m 644 $(B)/libvol.a $(DESTDIR)$(LIBDIR)
	install -m 644 $(wildcard libvol/vol.h) $(DESTDIR)$(PREFIX)/include/vd
	install -m 755 $(patsubst %,$(B)/%.so,$(PLUGINS)) $(DESTDIR)$(NBDKIT_PLUGINDIR)
	@for m in $(wildcard man/*.[1-8]); do s=$${m##*.}; \
		install -D -m 644 $$m $(DESTDIR)$(PREFIX)/share/man/man$$s/$${m##*/}; done
	@for r in $(wildcard udev-rules/*.rules); do install -D -m 644 $$r $(DESTDIR)$(UDEVDIR)/rules.d/$(call rules_name,$$r); done
	@install -d $(addprefix $(DESTDIR)$(UNITDIR)/,$(dir $(WANTS)))
	@install -m 644 $(UNITS) $(DESTDIR)$(UNITDIR)
	@for w in $(WANTS); do ln -sf ../$${w##*/} $(DESTDIR)$(UNITDIR)/$$w; done
	@sed -i 's,/usr/sbin/vd,$(PREFIX)/sbin/vd,' $(addprefix $(DESTDIR)$(UDEVDIR)/rules.d/,59-vd.rules 61-vd.rules) $(addprefix $(DESTDIR)$(UNITDIR)/,$(notdir $(UNITS)))
uninstall:
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/sbin/,$(CMDS)) $(DESTDIR)$(LIBDIR)/libvol.so.1 $(DESTDIR)$(LIBDIR)/libvol.so \
		$(DESTDIR)$(LIBDIR)/libvol.a $(DESTDIR)$(PREFIX)/include/vd/vol.h \
		$(addprefix $(DESTDIR)$(UDEVDIR)/rules.d/,$(DM_RULES) $(filter-out 11-dm-vd.rules,$(notdir $(wildcard udev-rules/*.rules)))) \
		$(addprefix $(DESTDIR)$(UNITDIR)/,$(notdir $(UNITS)) $(WANTS)) \
		$(patsubst %,$(DESTDIR)$(NBDKIT_PLUGINDIR)/%.so,$(PLUGINS)) \
		$(foreach m,$(wildcard man/*.[1-8]),$(DESTDIR)$(PREFIX)/share/man/man$(patsubst .%,%,$(suffix $(m)))/$(notdir $(m)))

clean:
	rm -rf build

-include $(shell find $(B) -name '*.d' -not -path '$(B)/fuzz/*' -not -path '$(B)/lab/*' 2>/dev/null) $(shell find build/fuzz -name '*.d' 2>/dev/null)
