#!/usr/bin/env bash
# github.com/hashicorp/golang-lru/v2 v2.0.7, package expirable: a cache with a
# lifetime starts a goroutine that nothing ends. There is no Close, and the
# goroutine holds the cache, so one that is dropped is never collected either.
#
# Why a user cares: a cache made for each host, tenant or connection, in a
# server that lives for months, is memory and a goroutine for each that ever
# was; a leak check in tests (goleak) fails on the first one.
#
# Guessed before the run: after 1,000 caches of 10 entries were dropped and the
# garbage collector ran twice, as many goroutines are left as before, or, as
# with time.Ticker since Go 1.23, they are collected with what they belong to.
# Seen (Go 1.26): "lifetime 1m0s: 1000 more goroutines", and none for a
# lifetime of 0, which means that entries never expire.
#
# Needs Go. Exits 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >main.go <<'GO'
package main

import (
	"fmt"
	"runtime"
	"time"

	"github.com/hashicorp/golang-lru/v2/expirable"
)

func main() {
	for _, lifetime := range []time.Duration{0, time.Minute} {
		before := runtime.NumGoroutine()
		for range 1000 {
			expirable.NewLRU[int, int](10, nil, lifetime).Add(1, 1)
		}
		for range 2 {
			runtime.GC()
			time.Sleep(100 * time.Millisecond)
		}
		fmt.Printf("lifetime %s: %d more goroutines\n", lifetime, runtime.NumGoroutine()-before)
	}
}
GO
go mod init finding >/dev/null 2>&1
go get github.com/hashicorp/golang-lru/v2@v2.0.7 >/dev/null 2>&1
seen=$(go run .)
printf '%s\n' "$seen"
want=$'lifetime 0s: 0 more goroutines\nlifetime 1m0s: 1000 more goroutines'
if [ "$seen" != "$want" ]; then
	echo "this has changed" >&2
	exit 1
fi
