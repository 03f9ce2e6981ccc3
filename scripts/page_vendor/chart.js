// The chart of Metrics. Its style is in css/chart.css.
export { default } from "uplot";
