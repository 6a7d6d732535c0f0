package integration

import "testing"

// A run does not see in the times of any place or device whether an earlier one has used it.
func TestTimesOfPlaces(t *testing.T) {
	s, current := alone(t)
	// In a pod the folders are root's: they have the time when they were emptied. Its terminals show that they were used.
	pod := map[bool]string{false: "False", true: "True"}[inPods()]
	look := "POD = " + pod + `
import os
own = ("/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr")  # lead to the program's own files
for place in ("/", "/tmp", "/dev", *(f"/dev/{name}" for name in sorted(os.listdir("/dev"))), "/proc/1"):
    if place in own or not os.path.exists(place) or POD and place == "/dev/ptmx": continue
    status = os.stat(place)
    folder = place in ("/tmp", "/dev/shm")
    print(place, 0 if POD and folder else status.st_mtime_ns, 0 if folder else status.st_ctime_ns)`
	before, first := mustRun(t, s, request{"code": look}), current()
	mustRun(t, s, request{"code": `import glob, os
for folder in ("/workspace", "/tmp", "/dev/shm", "/dev", "/dev/mqueue", "/dev/pts"):
    try: os.listdir(folder); open(folder + "/x", "w").close(); os.unlink(folder + "/x")
    except OSError: pass
for device in glob.glob("/dev/*"):
    for mode in (os.O_RDONLY, os.O_WRONLY):
        try: fd = os.open(device, mode | os.O_NONBLOCK); os.write(fd, b"x") if mode else os.read(fd, 1)
        except OSError: pass`})
	program{stdout: before.Stdout}.check(t, mustRun(t, s, request{"code": look}))
	if now := current(); now != first {
		t.Errorf("the runs were in %s and %s", first, now)
	}
}
