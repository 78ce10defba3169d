package memory_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/cache/memory"
)

func newAnswers(tb testing.TB, size int) *memory.Answers[string, int] {
	tb.Helper()
	a, err := memory.NewAnswers[string, int](size)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

func TestAnswers(t *testing.T) {
	want := func(t *testing.T, a *memory.Answers[string, int], key string, want int) {
		t.Helper()
		if got, ok := a.Get(key); got != want || !ok {
			t.Errorf("Get(%q) = %d, %t, want %d", key, got, ok, want)
		}
	}
	wantNone := func(t *testing.T, a *memory.Answers[string, int], key string) {
		t.Helper()
		if got, ok := a.Get(key); got != 0 || ok {
			t.Errorf("Get(%q) = %d, %t, want none", key, got, ok)
		}
	}
	t.Run("each is good for its own time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := newAnswers(t, 10)
			a.Put("short", 1, time.Second)
			a.Put("long", 2, time.Minute)
			time.Sleep(time.Second - time.Nanosecond)
			want(t, a, "short", 1)
			time.Sleep(time.Nanosecond)
			wantNone(t, a, "short")
			want(t, a, "long", 2)
			time.Sleep(time.Minute)
			wantNone(t, a, "long")
		})
	})
	t.Run("a later one takes the place and the time of an earlier one", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := newAnswers(t, 10)
			a.Put("key", 1, time.Second)
			a.Put("key", 2, time.Minute)
			time.Sleep(2 * time.Second)
			want(t, a, "key", 2)
		})
	})
	t.Run("one that is deleted or has no time left is gone", func(t *testing.T) {
		a := newAnswers(t, 10)
		a.Put("deleted", 1, time.Hour)
		a.Delete("deleted")
		a.Delete("never put")
		wantNone(t, a, "deleted")
		a.Put("late", 1, time.Hour)
		a.Put("late", 2, 0)
		wantNone(t, a, "late")
	})
	t.Run("the one used least recently makes room", func(t *testing.T) {
		a := newAnswers(t, 2)
		a.Put("a", 1, time.Hour)
		a.Put("b", 2, time.Hour)
		want(t, a, "a", 1)
		a.Put("c", 3, time.Hour)
		want(t, a, "a", 1)
		wantNone(t, a, "b")
		want(t, a, "c", 3)
	})
	t.Run("a size below one is an error", func(t *testing.T) {
		if _, err := memory.NewAnswers[string, int](0); err == nil {
			t.Error("no error")
		}
	})
}

func BenchmarkAnswersGet(b *testing.B) {
	a := newAnswers(b, 1000)
	a.Put("key", 1, time.Hour)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, ok := a.Get("key"); !ok {
				b.Error("a miss")
				return
			}
		}
	})
}

func TestAnswersWithinABound(t *testing.T) {
	a, err := memory.NewAnswersWithin(3, 100, func(key string, value int) int { return len(key) + value })
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		key   string
		value int
		want  string
	}{
		{"a", 40, "a"}, {"b", 40, "ab"}, {"a", 10, "ab"}, {"c", 30, "abc"}, {"d", 10, "bcd"}, {"e", 98, "e"}, {"e", 100, ""}, {"f", 1, "f"}, {"g", 90, "fg"}, {"f", 9, "f"},
	} {
		a.Put(step.key, step.value, time.Hour)
		got := ""
		for _, key := range []string{"a", "b", "c", "d", "e", "f", "g"} {
			if _, ok := a.Get(key); ok {
				got += key
			}
		}
		if got != step.want {
			t.Fatalf("after %d bytes of %s: %q, want %q", step.value, step.key, got, step.want)
		}
	}
	a.Delete("f")
	a.Put("h", 99, time.Hour)
	if _, ok := a.Get("h"); !ok {
		t.Error("what is deleted still takes room")
	}
	if _, err := memory.NewAnswersWithin(0, 1, func(string, int) int { return 0 }); err == nil {
		t.Error("a size of 0 is not an error")
	}
}
