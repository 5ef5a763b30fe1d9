/* link: dm-target/core/journal.c dm-target/core/replay.c libvol/port.c */
// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/* The tests of test_journal.c that have threads, for ThreadSanitizer (make check-tsan). */
#define TEST_FILTER "threads_*"
#include "test_journal.c"
