// Light, dark, or as the system has it.

import { useEffect, useState } from "react";

export type Theme = "system" | "light" | "dark";
const KEPT = "scenewire.theme";
const ORDER: Theme[] = ["system", "light", "dark"];

function kept(): Theme {
  try {
    const theme = localStorage.getItem(KEPT) as Theme;
    return ORDER.includes(theme) ? theme : "system";
  } catch {
    return "system";
  }
}

export function useTheme(): [Theme, () => void] {
  const [theme, setTheme] = useState(kept);
  useEffect(() => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem(KEPT, theme);
    } catch {
      // without storage it holds as long as the page
    }
  }, [theme]);
  return [theme, () => setTheme(ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length]!)];
}
