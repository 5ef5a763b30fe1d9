# SPDX-License-Identifier: GPL-2.0-only
# The agent of a server with a real NVMe target, and where systemd mounts.
load helper

agent() { "$VD/tests/lab/lab.sh" -i systemd -t 900 -k "$1" -j "$T/job" 'bash /vd/tests/lab/jobs/agent.sh'; }

@test "6.1: the agent has systemd mount what the kernel connects, and gives it back" {
	agent 6.1
}

@test "6.12: the agent has systemd mount what the kernel connects, and gives it back" {
	agent 6.12
}
