package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/proxy/warm"
)

// A fetchDisplay shows how images are fetched.
type fetchDisplay interface {
	report(e warm.Event)
	// end is called last. The result counts only if all ended well.
	end(all warm.Result, isResult bool) error
}

// newFetchDisplay shows events as JSON, as bars on a terminal, or else as lines.
func newFetchDisplay(output string, w io.Writer) fetchDisplay {
	file, isFile := w.(*os.File)
	switch {
	case output == "json":
		return &jsonEvents{json.NewEncoder(w)}
	case isFile && term.IsTerminal(int(file.Fd())):
		return newBars(w)
	}
	return &eventLines{w}
}

// jsonEvents writes one object a line.
type jsonEvents struct{ lines *json.Encoder }

// The command ends when it has nobody to write to.
func (j *jsonEvents) report(e warm.Event) { _ = j.lines.Encode(e) }

func (j *jsonEvents) end(all warm.Result, isResult bool) error {
	if !isResult {
		return nil
	}
	return j.lines.Encode(struct {
		Event warm.EventKind `json:"event"`
		warm.Result
	}{"end", all})
}

// eventLines writes a line for each event that is no progress.
type eventLines struct{ w io.Writer }

func (l *eventLines) report(e warm.Event) {
	if line := lineOf(e); line != "" {
		_, _ = fmt.Fprintln(l.w, line)
	}
}

func (l *eventLines) end(all warm.Result, isResult bool) error {
	if !isResult {
		return nil
	}
	_, err := fmt.Fprintln(l.w, summary(all))
	return err
}

func summary(all warm.Result) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%d images: %d manifests and %d blobs, %d of them (%s) fetched now", len(all.Images), all.Manifests, all.Blobs, all.Fetched, size(all.Bytes))
	for _, i := range all.Failed() {
		fmt.Fprintf(&text, "\nfailed %s: %s", i.Image, i.Error)
	}
	return text.String()
}

// lineOf is an event as a line; empty if it has none. Digests are cut, as in "ls":
// JSON has all of them.
func lineOf(e warm.Event) string {
	switch e.Event {
	case warm.EventStarted:
		return fmt.Sprintf("fetching %.19s of %s (%s)", e.Digest, e.Image, size(e.Size))
	case warm.EventDone:
		return fmt.Sprintf("fetched %s %.19s of %s (%s)", e.Kind, e.Digest, e.Image, size(e.Size))
	case warm.EventFailed:
		return fmt.Sprintf("failed %s %s of %s: %s", e.Kind, e.Digest, e.Image, e.Error)
	case warm.EventWaiting:
		return fmt.Sprintf("waiting until %s (%s): %s", e.Until.Local().Format(time.TimeOnly), time.Until(e.Until).Round(time.Second), e.Text)
	case warm.EventNote:
		return fmt.Sprintf("note %s: %s", e.Image, e.Text)
	case warm.EventImage:
		if e.Error != "" {
			return fmt.Sprintf("incomplete %s", e.Image) // the end has its reason
		}
		return fmt.Sprintf("complete %s: %d manifests and %d blobs, %d of them (%s) fetched now", e.Image, e.Result.Manifests, e.Result.Blobs, e.Result.Fetched, size(e.Result.Bytes))
	}
	return ""
}

// bars show a bar for each download under way, and one for all of them. Lines for
// images stand above.
type bars struct {
	w     io.Writer
	all   *mpb.Progress
	whole *mpb.Bar
	each  map[retention.Digest]*mpb.Bar
	came  map[retention.Digest]int64 // of what is under way
	total int64
	done  int64 // bytes of what is over
}

func newBars(w io.Writer) *bars {
	b := &bars{w: w, all: mpb.New(mpb.WithOutput(w), mpb.WithWidth(60)), each: map[retention.Digest]*mpb.Bar{}, came: map[retention.Digest]int64{}}
	b.whole = b.all.AddBar(0, mpb.BarPriority(1<<30),
		mpb.PrependDecorators(decor.Name("all", decor.WC{W: 13, C: decor.DindentRight}), decor.CountersKibiByte("% .1f / % .1f")),
		mpb.AppendDecorators(decor.AverageSpeed(decor.SizeB1024(0), "% .1f"), decor.Name(" "), decor.AverageETA(decor.ET_STYLE_GO)))
	return b
}

func (b *bars) report(e warm.Event) {
	switch e.Event {
	case warm.EventFound:
		b.total += max(e.Size, 0)
	case warm.EventStarted:
		b.each[e.Digest] = b.all.AddBar(max(e.Size, 0), mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.Name(fmt.Sprintf("%.12s", e.Digest.Encoded()), decor.WC{W: 13, C: decor.DindentRight}), decor.CountersKibiByte("% .1f / % .1f")))
	case warm.EventProgress:
		b.came[e.Digest] = e.Bytes
		if bar := b.each[e.Digest]; bar != nil {
			bar.SetCurrent(e.Bytes)
		}
	case warm.EventDone, warm.EventFailed:
		if bar := b.each[e.Digest]; bar != nil {
			bar.Abort(true)
			delete(b.each, e.Digest)
			delete(b.came, e.Digest)
			b.done += max(e.Size, 0)
		}
	}
	current := b.done
	for _, bytes := range b.came {
		current += bytes
	}
	b.whole.SetTotal(b.total+1, false) // it is complete when all has ended
	b.whole.SetCurrent(min(current, b.total))
	if e.Event != warm.EventStarted && e.Event != warm.EventDone {
		if line := lineOf(e); line != "" {
			_, _ = b.all.Write([]byte(line + "\n"))
		}
	}
}

func (b *bars) end(all warm.Result, isResult bool) error {
	for _, bar := range b.each {
		bar.Abort(true)
	}
	b.whole.Abort(true)
	b.all.Wait()
	if !isResult {
		return nil
	}
	_, err := fmt.Fprintln(b.w, summary(all))
	return err
}
