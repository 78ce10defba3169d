package pull

import (
	"errors"
	"io"
)

// firstPart is how many bytes of a body are read before its announced size is
// believed.
const firstPart = 64 << 10

// readBody reads a body of size bytes, or of unknown size if that is -1, but no
// more than most. It does without the copies that a buffer leaves behind as it
// grows, which for large manifests are many times their size.
func readBody(body io.Reader, size, most int64) ([]byte, error) {
	content := make([]byte, 0, min(max(size, 511)+1, firstPart))
	body = io.LimitReader(body, most)
	for {
		if len(content) == cap(content) {
			next := int64(2 * cap(content))
			if size >= int64(len(content)) {
				next = size + 1 // and one, to see the end
			}
			content = append(make([]byte, 0, min(max(next, int64(len(content))+512), most+1)), content...)
		}
		n, err := body.Read(content[len(content):cap(content)])
		content = content[:len(content)+n]
		if errors.Is(err, io.EOF) {
			return content, nil
		}
		if err != nil {
			return content, err
		}
	}
}
