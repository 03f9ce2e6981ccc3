// A plain script in the head: theme, density and motion are set before the first paint.
(() => {
  const read = (name) => {
    try {
      return JSON.parse(localStorage.getItem("mgs." + name) ?? "null");
    } catch {
      return null; // storage is off, or the value is not ours
    }
  };
  const root = document.documentElement;
  for (const name of ["theme", "density", "motion"]) {
    const value = read(name);
    if (typeof value === "string") root.dataset[name] = value;
  }
})();
