#!/usr/bin/perl
# SPDX-License-Identifier: GPL-2.0-only
# A peer in QEMU's place for guests, which have no Python (tests/cmd/qmp.py): one virtio-scsi
# controller, one disk at a time, and its device is open as long as QEMU would have it open.
# qmp.pl SOCKET
use strict;
use warnings;
use IO::Socket::UNIX;
use Fcntl;

my ($node, $file, $ro, $disk, $fh, $size);
my $listen = IO::Socket::UNIX->new(Local => $ARGV[0], Listen => 1) or die "socket: $!";
while (my $c = $listen->accept) {
	$c->autoflush(1);
	print $c "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n";
	while (my $q = <$c>) {
		my ($what) = $q =~ /"execute":"([^"]*)"/ or die $q;
		my ($id) = $q =~ /"id":(\d+)\}$/ or die $q;
		my ($r, $error, $event) = ("{}");
		if ($what eq "qom-list" && $q =~ m{"path":"/machine/peripheral"}) {
			$r = '[{"name": "scsi0", "type": "child<virtio-scsi-pci>"}' . ($disk ? ", {\"name\": \"$disk\", \"type\": \"child<scsi-hd>\"}" : "") . "]";
		} elsif ($what eq "qom-list") {
			$r = $q =~ /virtio-backend/ ? '[{"name": "scsi0.0", "type": "child<SCSI>"}]' : "[]";
		} elsif ($what eq "blockdev-add") {
			($node) = $q =~ /"node-name":"([^"]*)"/;
			($file) = $q =~ /"filename":"([^"]*)"/;
			$ro = $q =~ /"read-only":true/ ? "true" : "false";
			if (sysopen($fh, $file, $ro eq "true" ? O_RDONLY : O_RDWR)) {
				$size = sysseek($fh, 0, 2);
			} else {
				$error = "Could not open '$file': $!";
				undef $node;
			}
		} elsif ($what eq "blockdev-del") {
			if ($node) { close $fh; undef $node; } else { $error = "Failed to find node"; }
		} elsif ($what eq "query-named-block-nodes") {
			$r = $node ? "[{\"node-name\": \"$node\"}]" : "[]";
		} elsif ($what eq "device_add") {
			$disk = $node;
		} elsif ($what eq "device_del") {
			$event = "{\"event\": \"DEVICE_DELETED\", \"data\": {\"device\": \"$disk\", \"path\": \"/\"}}\n";
			undef $disk;
		} elsif ($what eq "query-block") {
			$r = $disk ? "[{\"qdev\": \"$disk\", \"inserted\": {\"node-name\": \"$node\", \"ro\": $ro, \"image\": " .
				"{\"filename\": \"$file\", \"virtual-size\": $size}}}]" : "[]";
		} elsif ($what eq "qom-get") {
			$r = $q =~ /parent_bus/ ? '"/machine/peripheral/scsi0/virtio-backend/scsi0.0"' : 0;
		}
		print $c $error ? "{\"error\": {\"class\": \"GenericError\", \"desc\": \"$error\"}, \"id\": $id}\n" : "{\"return\": $r, \"id\": $id}\n";
		print $c $event if $event;
	}
}
