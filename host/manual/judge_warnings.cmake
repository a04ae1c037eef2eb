# Fails on what Doxygen has to say, but for fields, values and types other than structs without a comment.
file(STRINGS ${WARNINGS} lines)
list(FILTER lines EXCLUDE REGEX "\\((variable|enumvalue|enumeration|typedef|macro definition)\\).*is not documented")
if(lines)
  list(JOIN lines "\n" lines)
  message(FATAL_ERROR "The manual has gaps:\n${lines}")
endif()
