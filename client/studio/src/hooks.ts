// Small hooks of the page.

import { useEffect, useLayoutEffect, useRef, useState } from "react";

/** The time, each second for as long as somebody counts. */
export function useNow(counting: boolean): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    if (!counting) return;
    setNow(Date.now());
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, [counting]);
  return now;
}

/** Calls each `ms` milliseconds while `wanted`, and the page is looked at. */
export function useEvery(ms: number, wanted: boolean, call: () => void): void {
  const latest = useRef(call);
  useEffect(() => {
    latest.current = call;
  });
  useEffect(() => {
    if (!wanted) return;
    const timer = setInterval(() => document.hidden || latest.current(), ms);
    return () => clearInterval(timer);
  }, [ms, wanted]);
}

const SAY_AFTER_MS = 600;

/** What is said politely to screen readers; several at once when they come together. */
export function useAnnouncer(): [said: string, say: (text: string) => void] {
  const [said, setSaid] = useState("");
  const waiting = useRef<string[]>([]);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  const say = useRef((text: string) => {
    if (!waiting.current.includes(text)) waiting.current.push(text);
    timer.current ??= setTimeout(() => {
      timer.current = undefined;
      setSaid(waiting.current.splice(0).join(". "));
    }, SAY_AFTER_MS);
  });
  return [said, say.current];
}

/** Shows a `<dialog>` for as long as it is there; it closes by Escape, and by a click beside it. */
export function useModal(onClose: () => void) {
  const ref = useRef<HTMLDialogElement>(null);
  // closed before it goes, so that the focus returns to where it was
  useLayoutEffect(() => {
    const dialog = ref.current;
    if (dialog && !dialog.open) dialog.showModal();
    return () => dialog?.close();
  }, []);
  return {
    ref,
    // the browser closes it by itself, and the page has to know
    onCancel: (event: { preventDefault(): void }) => {
      event.preventDefault();
      onClose();
    },
    onMouseDown: (event: { target: unknown; currentTarget: unknown }) => {
      if (event.target === event.currentTarget) onClose();
    },
  };
}
