#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# use.sh DIR: what is mounted there has what was written to it the time before, and is written to.  Who hears
# "used", and nothing else, may take it away.
exec 2>&1
mountpoint -q "$1" || { echo "$1 is not mounted"; exit 1; }
[ ! -e /run/block ] || cmp /run/block "$1/block" || exit
head -c 64k /dev/urandom >/run/block && cp /run/block "$1/block" && sync "$1/block" && echo used
