# Doxygen's input filter: the header's plain comments as Doxygen wants them. Rulers ("---- Devices ----") become groups,
# and names of the header links.
function slug(title) {
    title = tolower(title)
    gsub(/[^a-z0-9]+/, "_", title)
    return title
}
# What would be an HTML tag or a command to Doxygen
function escape(text) {
    gsub(/\\/, "&&", text)
    gsub(/</, "\\\\<", text)
    gsub(/>/, "\\\\>", text)
    gsub(/@/, "\\\\@", text)
    gsub(/#/, "\\\\#", text)
    gsub(/%/, "\\\\%", text)
    return text
}
function ruler(line, title) {
    title = line
    sub(/^\/\* -+ /, "", title)
    sub(/ -+.*$/, "", title)
    print (group ? "/** @} */ " : "") "/** @defgroup " slug(title) " " title
    group = in_comment = opening = 1
    if (line ~ /\*\/ *$/) {
        print " * @{ */"
        in_comment = opening = 0
    }
}
# Within a comment's text: errors stand out
function prose(text) {
    if (text ~ /^ \* +- /)
        listed = 1
    else if (text !~ /^ \*     /)
        listed = 0
    if (text ~ /^ \*     / && !listed) { # an example, to be shown as it is
        text = (example ? "" : " * @verbatim\n") text
        example = 1
        return text
    }
    text = (example ? " * @endverbatim\n" : "") linked(escape(text))
    example = 0
    if (!trailing)
        gsub(/(Other errors|Errors): /, "\n * @par Errors\n * ", text)
    return text
}
/^\/\* ---- / {
    ruler($0)
    next
}
/^#ifdef __cplusplus/ && group {
    print "/** @} */"
    group = 0
}
/^#include/ {
    print
    next
}
{
    rest = $0
    line = ""
    while (rest != "") {
        if (!in_comment) {
            at = index(rest, "/*")
            if (!at) {
                line = line rest
                break
            }
            line = line substr(rest, 1, at - 1)
            trailing = line ~ /[^ ]/
            line = line (trailing ? "/**<" : "/**") (NR == 1 ? " @file\n *" : "")
            rest = substr(rest, at + 2)
            in_comment = 1
        }
        at = index(rest, "*/")
        if (!at) {
            line = line prose(rest)
            break
        }
        line = line prose(substr(rest, 1, at - 1)) (opening ? "\n * @{ */" : "*/")
        rest = substr(rest, at + 2)
        in_comment = opening = 0
    }
    print line
}
