# Doxygen's input filter of a page in Markdown: with a table of contents; what is said of the header links to it, and what
# is elsewhere in the repository, where the manual does not reach, is named by its path.
function paths(text, out, link) {
    while (match(text, /\[[^]]*\]\(\.\.\/[^)]*\)/)) {
        link = substr(text, RSTART, RLENGTH)
        out = out substr(text, 1, RSTART - 1)
        text = substr(text, RSTART + RLENGTH)
        gsub(/.*\]\(|\)$/, "", link)
        if (!sub(/^\.\.\/\.\.\//, "", link))
            sub(/^\.\.\//, "host/", link)
        out = out "`" link "`"
    }
    return out text
}
/^```/ {
    code = !code
}
code || /^```/ {
    print
    next
}
/^# / {
    print $0 "\n\n[TOC]"
    next
}
{
    $0 = paths($0)
    count = split($0, parts, "`")
    if (count % 2 == 0) { # code that ends on another line
        print
        next
    }
    line = ""
    for (i = 1; i <= count; i++)
        if (i % 2)
            line = line linked(parts[i])
        else if (parts[i] ~ /^[A-Za-z0-9_.:>-]+$/ && linked(parts[i]) != parts[i])
            line = line "<code>" linked(parts[i]) "</code>"
        else
            line = line "`" parts[i] "`"
    print line
}
