# For both of the manual's filters: what the headers declare, which prose links to. Set `header` and `results`.
function read_names(path, line, described) {
    while ((getline line < path) > 0) {
        described = sub(/\/\*.*/, "", line)
        if (line ~ /^typedef (struct|enum) peridot_[a-z0-9_]+ \{/ || line ~ /^(PERIDOT_API .*)?peridot_[a-z0-9_]+\(/ ||
            line ~ /^typedef .*\(\*peridot_[a-z0-9_]+\)\(/) {
            sub(/\)?\(([^*].*)?$| \{.*/, "", line) # what is behind the name
            sub(/.*[^a-z0-9_]/, "", line)
            names[line] = 1
        } else if (line ~ /^(#define|   ) ?PERIDOT_[A-Z0-9_]+[ ,]/ && described) { # Doxygen has no others
            sub(/^[^P]*/, "", line)
            sub(/[^A-Z0-9_].*/, "", line)
            names[line] = 1
        }
    }
    close(path)
}
# Names become links.
function linked(text, out, name, known) {
    while (match(text, /[A-Za-z0-9_]*(peridot|PERIDOT)_[A-Za-z0-9_]+(::[a-z_]+)?/)) {
        name = known = substr(text, RSTART, RLENGTH)
        sub(/::.*/, "", known)
        out = out substr(text, 1, RSTART - 1) (known in names ? "@ref " name " \"" name "\"" : name)
        text = substr(text, RSTART + RLENGTH)
    }
    return out text
}
BEGIN {
    read_names(header)
    read_names(results)
}
