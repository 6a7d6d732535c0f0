package main

import (
	"errors"

	"golang.org/x/sys/unix"
)

// processClock returns the CPU time of a process in seconds. It is exact, where
// /proc/PID/stat counts ticks of 10 ms.
func processClock(pid int) (float64, bool) {
	const scheduled = 2 // CPUCLOCK_SCHED; see clock_getcpuclockid(3) and the kernel's posix-timers.h
	var t unix.Timespec
	err := unix.ClockGettime(int32(^pid<<3|scheduled), &t)
	return float64(t.Nano()) / 1e9, err == nil
}

// awaitEnd waits until a child of this process has ended, without forgetting it.
func awaitEnd(pid int) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
