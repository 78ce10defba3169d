package config

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

const (
	envPrefix = "ENTREPOT_"
	// EnvFile is the variable that names the configuration file if no flag
	// does.
	EnvFile = envPrefix + "CONFIG"
)

// variable returns the name of the variable for a key's path.
func variable(path string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// singleKeys returns the paths that a variable can set: all outside of
// upstreams.
func singleKeys() []string {
	var paths []string
	leaves(reflect.ValueOf(Config{}), "", func(path string, _ reflect.Value) { paths = append(paths, path) })
	return paths
}

// checkEnvironment reports ENTREPOT_* variables that have no meaning, except
// for those that Kubernetes sets for a service named entrepot. Empty variables
// are ignored.
func (r *report) checkEnvironment() {
	known := []string{EnvFile}
	for _, path := range singleKeys() {
		known = append(known, variable(path))
	}
	environment := os.Environ()
	slices.Sort(environment)
	for _, assignment := range environment {
		name, value, _ := strings.Cut(assignment, "=")
		if !strings.HasPrefix(name, envPrefix) || value == "" || slices.Contains(known, name) || isKubernetesVariable(assignment) {
			continue
		}
		place := Origin{Kind: FromEnvironment, Name: name}
		if name == envPrefix+"UPSTREAMS" || strings.HasPrefix(name, envPrefix+"UPSTREAMS_") {
			r.addAt(place, "", "upstreams can't be set by an environment variable", "set them in a file, named by --config or "+EnvFile)
		} else if near := nearestVariable(name, known); near != "" {
			r.addAt(place, "", "unknown environment variable", "did you mean "+near+"?")
		} else {
			r.addAt(place, "", "unknown environment variable", "unset it, or name a key, as in "+variable("cache.dir")+", which is cache.dir")
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

// kubernetesVariable matches the variables that Kubernetes sets in each
// container for the services of its namespace, as name=value
// (pkg/kubelet/envvars). For a service named entrepot-admin the names continue
// with ADMIN_, and a service may be named entrepot-service.
var kubernetesVariable = regexp.MustCompile(`^ENTREPOT(_[A-Z0-9_]+)?_(` +
	`(SERVICE_HOST|PORT_[0-9]+_(TCP|UDP|SCTP)_ADDR)=[0-9a-f.:]+|` +
	`(SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)_PORT)=[0-9]+|` +
	`PORT_[0-9]+_(TCP|UDP|SCTP)_PROTO=(tcp|udp|sctp)|` +
	`PORT(_[0-9]+_(TCP|UDP|SCTP))?=(tcp|udp|sctp)://[0-9a-f.:[\]]+)$`)

// isKubernetesVariable reports whether Kubernetes set a variable. It does not
// match ENTREPOT_PORT=5000, which somebody has set and expects to have an
// effect.
func isKubernetesVariable(assignment string) bool { return kubernetesVariable.MatchString(assignment) }
