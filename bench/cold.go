package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"
)

const coldClients = 50

// coldResult is what many clients saw who asked at once for a blob that was
// not cached.
type coldResult struct {
	upstreamBytes  int64
	worstFirstByte time.Duration
	wall           time.Duration // until the last client had the last byte
	memory         int64         // growth of the resident set at its peak, bytes
	served         int           // clients that got the whole blob
}

func measureCold(ctx context.Context, s *server, up *upstream) (*coldResult, error) {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	one := &http.Client{Transport: &http.Transport{}}
	defer one.CloseIdleConnections()
	// As every client does, the manifest first.
	if _, err := get(ctx, one, http.MethodGet, s.url(), manifestPath(tag), up.manifest); err != nil {
		return nil, err
	}
	if err := s.forgetPeak(); err != nil {
		return nil, err
	}
	before, err := s.resident("VmRSS")
	if err != nil {
		return nil, err
	}
	sent := up.sent.Load()
	begun := time.Now()
	firsts, failures := make([]time.Duration, coldClients), make([]error, coldClients)
	var clients sync.WaitGroup
	for i := range coldClients {
		clients.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			firsts[i], failures[i] = get(ctx, client, http.MethodGet, s.url(), blobPath(up.blob.digest), up.blob)
		})
	}
	clients.Wait()
	result := &coldResult{wall: time.Since(begun), worstFirstByte: slices.Max(firsts)}
	for _, err := range failures {
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s, cold: %v\n", s.name, err)
			continue
		}
		result.served++
	}
	result.upstreamBytes = up.sent.Load() - sent
	peak, err := s.resident("VmHWM")
	if err != nil {
		return nil, err
	}
	result.memory = peak - before
	return result, nil
}
