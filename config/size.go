package config

import (
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes, or a percentage of a file system.
type Size struct {
	Bytes   int64
	Percent int // 1 to 100; then Bytes is 0
}

type unit struct {
	name  string
	bytes int64
}

// units are in descending order, so that String finds the largest that divides
// a size.
func units() []unit {
	return []unit{
		{"TiB", 1 << 40}, {"TB", 1e12}, {"GiB", 1 << 30}, {"GB", 1e9},
		{"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"kB", 1e3}, {"B", 1},
	}
}

// Of returns the size in bytes on a file system of total bytes.
func (s Size) Of(total int64) int64 {
	if s.Percent == 0 {
		return s.Bytes
	}
	return total/100*int64(s.Percent) + total%100*int64(s.Percent)/100
}

// String formats the size as in a configuration, without loss.
func (s Size) String() string {
	if s.Percent != 0 {
		return strconv.Itoa(s.Percent) + "%"
	}
	if s.Bytes == 0 {
		return "0"
	}
	for _, u := range units() {
		if s.Bytes%u.bytes == 0 {
			return strconv.FormatInt(s.Bytes/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(s.Bytes, 10)
}

// ParseSize parses a size such as 50GiB, 1.5GB, 1048576 or 80%. The case of a
// unit is ignored. The error is a [Mistake] without a key.
func ParseSize(text string) (Size, error) {
	const fix = "write a size such as 50GiB, 1GB or 80%"
	digits := strings.TrimRight(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz% ")
	name := strings.TrimSpace(text[len(digits):])
	number, err := strconv.ParseFloat(digits, 64)
	if err != nil || math.IsNaN(number) || math.IsInf(number, 0) || strings.ContainsAny(digits, "_xXpPnN") {
		return Size{}, Mistake{Problem: quoted(text) + " is not a size", Fix: fix}
	}
	if number < 0 {
		return Size{}, Mistake{Problem: quoted(text) + " is negative", Fix: fix}
	}
	if name == "%" {
		if number < 1 || number > 100 || number != math.Trunc(number) {
			return Size{}, Mistake{Problem: quoted(text) + " is not a percentage", Fix: "write a whole number from 1% to 100%"}
		}
		return Size{Percent: int(number)}, nil
	}
	factor := int64(1)
	if name != "" {
		if factor, err = unitBytes(strings.TrimSpace(digits), name); err != nil {
			return Size{}, err
		}
	}
	// Whole numbers are parsed exactly; only fractions use floating point.
	if whole, err := strconv.ParseInt(digits, 10, 64); err == nil && whole <= math.MaxInt64/factor {
		return Size{Bytes: whole * factor}, nil
	}
	bytes := number * float64(factor)
	if bytes >= math.MaxInt64 {
		return Size{}, Mistake{Problem: quoted(text) + " is more than any disk holds", Fix: fix}
	}
	return Size{Bytes: int64(bytes)}, nil
}

func unitBytes(digits, name string) (int64, error) {
	var names []string
	for _, u := range units() {
		if strings.EqualFold(u.name, name) {
			return u.bytes, nil
		}
		names = append(names, u.name)
	}
	if len(name) == 1 && strings.Contains("KMGTkmgt", name) {
		letter := strings.ToUpper(name)
		return 0, Mistake{
			Problem: "unknown unit " + quoted(name),
			Fix:     "write " + digits + letter + "iB (powers of 1024) or " + digits + letter + "B (powers of 1000)",
		}
	}
	m := Mistake{Problem: "unknown unit " + quoted(name), Fix: "known units: B, kB, KiB, MB, MiB, GB, GiB, TB, TiB, %"}
	if nearest := Nearest(name, names); nearest != "" {
		m.Fix = "did you mean " + digits + nearest + "?"
	}
	return 0, m
}
