package main

import (
	"testing"

	"github.com/entrepot/entrepot/limits"
)

func TestPlacesComeFromTheLimitsOfTheMachine(t *testing.T) {
	for _, c := range []struct {
		name                     string
		files, memory            int64
		clients, headers, flight int
	}{
		{"a service with 1,024 files", 1024, 8 << 30, 768, 16, 256},
		{"a container of 128 MiB", 1 << 20, 128 << 20, 1024, 1, 1024},
		{"hardly any files", 64, 8 << 30, 64, 16, 64},
		{"nothing is known", 0, 0, 1 << 20, 16, 1024},
		{"a large machine", 1 << 20, 64 << 30, 524288, 16, 1024},
	} {
		m := machine{Limits: limits.Limits{Files: c.files, Memory: c.memory}}
		if got := m.clientPlaces(); got != c.clients {
			t.Errorf("%s: %d places for clients, want %d", c.name, got, c.clients)
		}
		if got := m.largeHeaders(); got != c.headers {
			t.Errorf("%s: %d large headers, want %d", c.name, got, c.headers)
		}
		if got := m.maxFlights(); got != c.flight {
			t.Errorf("%s: %d downloads, want %d", c.name, got, c.flight)
		}
	}
}
