# The names that lme4 and lmerTest export, lme4's methods for fits, and those of getME.
# Rscript lme4_names.R > lme4_names.json
suppressMessages({
  library(lme4)
  library(lmerTest)
})
quoted <- function(x) paste0("[\n  ", paste0('"', sort(x), '"', collapse = ",\n  "), "\n ]")
generics <- unique(attr(methods(class = "merMod"), "info")$generic)
components <- setdiff(eval(formals(lme4:::getME.merMod)$name), "glmer.nb.theta")
cat(
  "{\n",
  '"version": "', as.character(packageVersion("lme4")), '",\n',
  '"lme4": ', quoted(ls("package:lme4")), ",\n",
  '"lmerTest": ', quoted(ls("package:lmerTest")), ",\n",
  '"methods": ', quoted(generics), ",\n",
  '"getME": ', quoted(components), "\n}\n",
  sep = ""
)
