package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of times in /proc/PID/stat, the same on every Linux.
const tick = 10 * time.Millisecond

// group lists the processes of a group: the program and its workers.
func group(leader int) ([]string, error) {
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var members []string
	for _, folder := range folders {
		fields, err := statFields(folder)
		if err != nil {
			continue // it has ended meanwhile
		}
		if fields[4-3] != strconv.Itoa(leader) && fields[5-3] != strconv.Itoa(leader) {
			continue
		}
		members = append(members, folder)
	}
	if len(members) == 0 {
		return nil, fmt.Errorf("process %d has ended", leader)
	}
	return members, nil
}

// statFields are those of proc(5)'s /proc/PID/stat from the third on.
func statFields(folder string) ([]string, error) {
	stat, err := os.ReadFile(filepath.Join(folder, "stat"))
	if err != nil {
		return nil, err
	}
	// The second is the program's name, which may hold anything.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 15 {
		return nil, fmt.Errorf("%s/stat is too short", folder)
	}
	return fields, nil
}

// cpu is the time that a program and its workers have used so far.
func (s *server) cpu() (time.Duration, error) {
	members, err := group(s.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	var total time.Duration
	for _, folder := range members {
		fields, err := statFields(folder)
		if err != nil {
			return 0, err
		}
		for _, field := range []string{fields[14-3], fields[15-3]} { // utime, stime
			ticks, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s/stat: %w", folder, err)
			}
			total += time.Duration(ticks) * tick
		}
	}
	return total, nil
}

// resident is a line of /proc/PID/status, summed over a program and its
// workers, in bytes.
func (s *server) resident(line string) (int64, error) {
	members, err := group(s.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	var total int64
	for _, folder := range members {
		file, err := os.Open(filepath.Join(folder, "status"))
		if err != nil {
			return 0, err
		}
		scanner := bufio.NewScanner(file)
		for scanner.Scan() {
			rest, ok := strings.CutPrefix(scanner.Text(), line+":")
			if !ok {
				continue
			}
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				file.Close()
				return 0, fmt.Errorf("%s/status: %w", folder, err)
			}
			total += kib << 10
		}
		file.Close()
	}
	return total, nil
}

// forgetPeak lets VmHWM begin anew (proc(5), clear_refs).
func (s *server) forgetPeak() error {
	members, err := group(s.cmd.Process.Pid)
	if err != nil {
		return err
	}
	for _, folder := range members {
		if err := os.WriteFile(filepath.Join(folder, "clear_refs"), []byte("5"), 0); err != nil {
			return err
		}
	}
	return nil
}
