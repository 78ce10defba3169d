package config

import "strings"

// Nearest returns the known word that was probably meant: the one with the
// fewest differences, or else one that begins or ends with word. It returns ""
// if none is similar. Case is ignored.
func Nearest(word string, known []string) string {
	word = strings.ToLower(word)
	best, bestDistance := "", 1+max(1, len(word)/3)
	for _, candidate := range known {
		if d := distance(word, strings.ToLower(candidate)); d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	for _, candidate := range known {
		short, long := word, strings.ToLower(candidate)
		if len(short) > len(long) {
			short, long = long, short
		}
		if best == "" && len(short) > 1 && (strings.HasPrefix(long, short) || strings.HasSuffix(long, "_"+short)) {
			best = candidate
		}
	}
	return best
}

// distance counts the insertions, deletions, replacements and swaps of
// neighbours that turn a into b.
func distance(a, b string) int {
	beforeLast, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := last[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			row[j] = min(last[j]+1, row[j-1]+1, replace)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], beforeLast[j-2]+1)
			}
		}
		beforeLast, last = last, row
	}
	return last[len(b)]
}
