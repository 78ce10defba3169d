package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

// Options say where a configuration is loaded from. The zero value loads only
// the defaults.
type Options struct {
	// File is the configuration file. If it is empty, --config or else
	// ENTREPOT_CONFIG may name one.
	File string
	// Environment says whether to use ENTREPOT_* variables.
	Environment bool
	// Flags are the parsed flags of [AddFlags], or nil.
	Flags *pflag.FlagSet
	// Memory is how many bytes of memory the process may take; zero if that is
	// not known. The default of cache.memory is a quarter of it at most.
	Memory int64
}

// Load merges the defaults, the file, the environment and the flags, from
// weakest to strongest, and checks the result. An error is of type [Mistakes]
// and lists all that is wrong.
func Load(opts Options) (Config, Origins, error) {
	r := &report{places: map[string]Origin{}}
	merged := viper.New()
	defaults := Default()
	defaults.Cache.Memory = defaultMemory(opts.Memory)
	leaves(reflect.ValueOf(&defaults).Elem(), "", func(path string, v reflect.Value) {
		if !strings.Contains(path, "[") { // lists of tables are only set by a file
			merged.SetDefault(path, textOf(v))
		}
	})

	if file := opts.file(); file != "" {
		settings, ok := r.readFile(file)
		if !ok {
			return Config{}, nil, r.err()
		}
		if err := merged.MergeConfigMap(settings); err != nil {
			return Config{}, nil, fmt.Errorf("merge %s: %w", file, err)
		}
	}
	if err := r.bind(merged, opts); err != nil {
		return Config{}, nil, err
	}

	cfg := defaults
	r.decode(merged.AllSettings(), reflect.ValueOf(&cfg).Elem(), "")
	completeUpstreams(cfg.Upstreams)
	r.inherit(&cfg)
	r.check(&cfg)
	if err := r.err(); err != nil {
		return Config{}, nil, err
	}
	origins := Origins{}
	leaves(reflect.ValueOf(&cfg).Elem(), "", func(path string, _ reflect.Value) {
		if place, ok := r.places[path]; ok {
			origins[path] = place
		}
	})
	return cfg, origins, nil
}

// inherit sets values of upstreams from the global ones if they are not set.
func (r *report) inherit(cfg *Config) {
	for i := range cfg.Upstreams {
		if _, given := r.places[join(at("upstreams", i), "deleted")]; !given {
			cfg.Upstreams[i].Deleted = cfg.Freshness.Deleted
		}
	}
}

func (o Options) file() string {
	if o.File != "" {
		return o.File
	}
	if o.Flags != nil {
		if flag := o.Flags.Lookup("config"); flag != nil && flag.Changed {
			return flag.Value.String()
		}
	}
	if o.Environment {
		return os.Getenv(EnvFile)
	}
	return ""
}

// maxFile is the maximum size of a configuration file in bytes.
const maxFile = 4 << 20

func (r *report) readFile(name string) (map[string]any, bool) {
	content, err := readAtMost(name, maxFile)
	if err != nil {
		r.addAt(Origin{Kind: FromFile, Name: name}, "", readError(err), "")
		return nil, false
	}
	return r.readContent(name, content)
}

func (r *report) readContent(name string, content []byte) (map[string]any, bool) {
	root, mistake := parse(name, content)
	if mistake != nil {
		place := Origin{Kind: FromFile, Name: name, Line: mistake.Line}
		r.addAt(place, "", mistake.Problem, mistake.Fix)
		return nil, false
	}
	settings, _ := r.settings(name, root, reflect.TypeFor[Config](), "").(map[string]any)
	return settings, true
}

// bind gives the environment and the flags precedence over the file.
func (r *report) bind(merged *viper.Viper, opts Options) error {
	for _, path := range singleKeys() {
		if opts.Environment {
			if err := merged.BindEnv(path, variable(path)); err != nil {
				return fmt.Errorf("bind %s: %w", variable(path), err)
			}
			if os.Getenv(variable(path)) != "" {
				r.setOrigin(path, Origin{Kind: FromEnvironment, Name: variable(path)})
			}
		}
		if opts.Flags == nil || flagOf(path) == "" {
			continue
		}
		if flag := opts.Flags.Lookup(flagOf(path)); flag != nil && flag.Changed {
			if err := merged.BindPFlag(path, flag); err != nil {
				return fmt.Errorf("bind --%s: %w", flag.Name, err)
			}
			r.setOrigin(path, Origin{Kind: FromFlag, Name: flag.Name})
		}
	}
	if opts.Environment {
		r.checkEnvironment()
	}
	return nil
}

// readError returns the system's error without the name of the file, which the
// mistake already has.
func readError(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return "cannot be read: " + path.Err.Error()
	}
	return "cannot be read: " + err.Error()
}

func readAtMost(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(content)) > most {
		return nil, fmt.Errorf("larger than %s", Size{Bytes: most})
	}
	return content, nil
}
