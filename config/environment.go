package config

import (
	"os"
	"reflect"
	"slices"
	"strings"
)

const (
	envPrefix = "ENTREPOT_"
	// EnvFile names the configuration file where no flag does.
	EnvFile = envPrefix + "CONFIG"
)

// variable is the name of the variable for a key's path.
func variable(path string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// singleKeys are the paths that a variable can set: all outside of upstreams.
func singleKeys() []string {
	var paths []string
	leaves(reflect.ValueOf(Config{}), "", func(path string, _ reflect.Value) { paths = append(paths, path) })
	return paths
}

// checkEnvironment reports variables that were probably meant for entrepot and
// mean nothing to it. Others with the prefix are let be: Kubernetes makes some
// for a service that is called entrepot.
func (r *report) checkEnvironment() {
	known := []string{EnvFile}
	for _, path := range singleKeys() {
		known = append(known, variable(path))
	}
	environment := os.Environ()
	slices.Sort(environment)
	for _, assignment := range environment {
		name, value, _ := strings.Cut(assignment, "=")
		if !strings.HasPrefix(name, envPrefix) || value == "" || slices.Contains(known, name) || fromKubernetes(name) {
			continue
		}
		place := Origin{Kind: FromEnvironment, Name: name}
		if name == envPrefix+"UPSTREAMS" || strings.HasPrefix(name, envPrefix+"UPSTREAMS_") {
			r.addAt(place, "", "upstreams can't be set by a variable", "set them in a file, named by --config or "+EnvFile)
		} else if near := nearestVariable(name, known); near != "" {
			r.addAt(place, "", "unknown variable", "did you mean "+near+"?")
		}
	}
}

func nearestVariable(name string, known []string) string {
	word := strings.TrimPrefix(name, envPrefix)
	var words []string
	for _, k := range known {
		words = append(words, strings.TrimPrefix(k, envPrefix))
	}
	near := Nearest(word, words)
	if near == "" {
		return ""
	}
	return envPrefix + near
}

// fromKubernetes knows the variables that Kubernetes makes for services whose
// name begins with entrepot.
func fromKubernetes(name string) bool {
	return strings.HasSuffix(name, "_SERVICE_HOST") || strings.Contains(name, "_SERVICE_PORT") ||
		strings.HasSuffix(name, "_PORT") || strings.Contains(name, "_PORT_")
}
