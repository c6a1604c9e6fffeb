// After every station is in place.
theme();
travel();
typeset();
document.documentElement.dataset.ready = "yes";
