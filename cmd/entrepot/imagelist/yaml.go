package imagelist

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Kubernetes reads the images of manifests: whatever is called image, in an
// object of any kind, custom ones too, which may be in a list. An image volume
// says it as reference, and some custom kinds as repository and tag or digest.
// JSON is YAML.
func Kubernetes(r io.Reader, file string) ([]Entry, error) {
	return documents(r, file, kubernetesImages)
}

// Compose reads the images of the services of a Compose file. Variables are
// replaced as Compose does it; lookup returns their values. A service that is only
// built has no image.
func Compose(r io.Reader, file string, lookup func(name string) (value string, ok bool)) ([]Entry, error) {
	return documents(r, file, func(document *yaml.Node, add func(text string, at *yaml.Node)) {
		services := member(document, "services")
		if services == nil || services.Kind != yaml.MappingNode {
			return
		}
		for i := 1; i < len(services.Content); i += 2 {
			if image := member(services.Content[i], "image"); image != nil && image.Kind == yaml.ScalarNode {
				add(interpolate(image.Value, lookup), image)
			}
		}
	})
}

// documents reads all documents of a YAML file.
func documents(r io.Reader, file string, read func(document *yaml.Node, add func(text string, at *yaml.Node))) (all []Entry, err error) {
	decoder := yaml.NewDecoder(r)
	for {
		var document yaml.Node
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, fmt.Errorf("%s: %w", file, err)
		}
		for _, content := range document.Content {
			read(content, func(text string, at *yaml.Node) {
				if text != "" {
					all = append(all, Entry{text, file, at.Line})
				}
			})
		}
	}
}

// kubernetesImages goes through everything. What an alias stands for was read
// where it is defined: to follow aliases could take forever.
func kubernetesImages(n *yaml.Node, add func(text string, at *yaml.Node)) {
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 1 && n.Content[i-1].Value == "image" {
			addImage(child, add)
		}
		kubernetesImages(child, add)
	}
}

func addImage(image *yaml.Node, add func(text string, at *yaml.Node)) {
	if image.Kind == yaml.ScalarNode && image.Tag == "!!str" {
		add(image.Value, image)
		return
	}
	text := func(name string) string {
		if n := member(image, name); n != nil && n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
			return n.Value
		}
		return ""
	}
	if reference := text("reference"); reference != "" {
		add(reference, image)
		return
	}
	name := text("repository")
	if name == "" {
		return
	}
	if registry := text("registry"); registry != "" {
		name = registry + "/" + name
	}
	if tag := text("tag"); tag != "" {
		name += ":" + tag
	}
	if digest := text("digest"); digest != "" {
		name += "@" + digest
	}
	add(name, image)
}

func member(of *yaml.Node, name string) *yaml.Node {
	if of.Kind == yaml.AliasNode {
		of = of.Alias
	}
	if of.Kind != yaml.MappingNode {
		return nil
	}
	for i := 1; i < len(of.Content); i += 2 {
		if of.Content[i-1].Value == name {
			return of.Content[i]
		}
	}
	return nil
}

var variable = regexp.MustCompile(`\$(?:(\$)|([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-+?])([^}]*))?\})`)

// interpolate replaces $NAME, ${NAME}, ${NAME:-default}, ${NAME-default},
// ${NAME:+instead} and ${NAME+instead}. $$ is a dollar sign.
func interpolate(text string, lookup func(string) (string, bool)) string {
	return variable.ReplaceAllStringFunc(text, func(found string) string {
		m := variable.FindStringSubmatch(found)
		if m[1] != "" {
			return "$"
		}
		value, ok := lookup(m[2] + m[3])
		isSet := ok && (value != "" || !strings.HasPrefix(m[4], ":"))
		switch strings.TrimPrefix(m[4], ":") {
		case "-":
			if !isSet {
				return m[5]
			}
		case "+":
			if !isSet {
				return ""
			}
			return m[5]
		}
		return value
	})
}
