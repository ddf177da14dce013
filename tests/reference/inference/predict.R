# lme4's predictions for new rows: writes predict.json.  usage: Rscript predict.R OUTDIR
# The data are the package's bundled datasets (src/mixedeffects/datasets/data).
suppressMessages({library(lme4); library(jsonlite)})
out <- commandArgs(TRUE)[1]
script <- sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))
data_of <- function(name) read.csv(gzfile(file.path(dirname(script), "../../../src/mixedeffects/datasets/data", paste0(name, ".csv.gz"))))
sleep <- data_of("sleepstudy"); sleep$Subject <- factor(sleep$Subject)
three <- data_of("threelevel"); three$sch.cl <- factor(three$sch.cl)
star <- data_of("star_sample"); star$cltype <- factor(star$cltype, c("small", "reg", "reg+A")); star$sx <- factor(star$sx, c("M", "F"))
orth <- data_of("orthodont"); orth$w <- rep(c(1, 2, 0.5, 4), length.out = nrow(orth))
pen <- data_of("penicillin")
cake <- data_of("cake"); cake$recipe <- factor(cake$recipe); cake$replicate <- factor(cake$replicate)
answer <- function(m, new, parts, drop = character()) {
  plain <- function(re) as.numeric(suppressWarnings(predict(m, new, re.form = re, allow.new.levels = TRUE)))
  list(theta = unname(getME(m, "theta")), newdata = lapply(new, function(x) if (is.factor(x)) as.character(x) else x),
       all = plain(NULL), none = plain(NA), parts = lapply(parts, plain)) }
answers <- list(versions = list(R = R.version.string, lme4 = as.character(packageVersion("lme4"))),
  sleepstudy = answer(lmer(Reaction ~ Days + (Days|Subject), sleep),
    data.frame(Days = c(0, 10, 4.5, 2), Subject = c("308", "999", "372", "350")), list()),
  double_bar = answer(lmer(Reaction ~ poly(Days, 2) + (Days||Subject), sleep),
    data.frame(Days = c(0, 11, 4.5, 2), Subject = c("308", "309", "372", "999")), list("~(1|Subject)" = ~(1|Subject))),
  threelevel = answer(lmer(y ~ x1 + (1|sch.cl/tch.cl), three),
    data.frame(x1 = c(0, 1, -1, 2, 0.5), sch.cl = c("a", "a", "b", "z", "j"), tch.cl = c(1, 99, 2, 1, 3)), list("~(1|sch.cl)" = ~(1|sch.cl))),
  star_sample = answer(lmer(read ~ cltype + sx + (sx|sch/tch), star),
    data.frame(cltype = c("reg", "small", "reg+A", "reg"), sx = c("F", "M", "F", "M"), sch = star$sch[c(1, 40, 90, 1)], tch = star$tch[c(1, 40, 1, 90)]),
    list("~(sx|sch)" = ~(sx|sch))),
  penicillin = answer(lmer(diameter ~ 1 + (1|plate) + (1|sample), pen),
    data.frame(plate = c("a", "new", "c", "d"), sample = c("F", "A", "new", "B")), list("~(1|plate)" = ~(1|plate), "~(1|sample)" = ~(1|sample))),
  cake = answer(lmer(angle ~ recipe + scale(temp) + (1|recipe:replicate), cake),
    data.frame(recipe = c("A", "C", "B"), temp = c(170, 200, 230), replicate = c("1", "15", "16")), list()),
  orthodont = answer(lmer(distance ~ I(age - 11) * Sex + offset(log(age)) + (I(age - 11)|Subject), orth, weights = w),
    data.frame(age = c(8, 15, 10), Sex = c("Male", "Female", "Female"), Subject = c("M01", "F03", "F99")), list()))
write(toJSON(answers, digits = 12, auto_unbox = TRUE), file.path(out, "predict.json"))
