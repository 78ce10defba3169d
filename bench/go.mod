module github.com/entrepot/entrepot/bench

go 1.26

require golang.org/x/time v0.14.0
